"""Validate NIfTI headers before a voxel is read, and describe what an affine leaves open."""

import math
import struct
from pathlib import Path
from typing import cast

import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from nibabel.arrayproxy import ArrayProxy
from nibabel.nifti1 import Nifti1Header, Nifti1Pair
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

# What must hold of a NIfTI file before a voxel is read: a check passes, or raises one line that names it.


GRID_TOLERANCE = 1e-3  # voxels, and voxels per voxel: far above float32 rounding, far below what can be seen
MAX_VOXELS = 2**31  # 1024 x 1024 x 2048: 8 GiB as float32, beyond any clinical CT or MR series
MAX_EXTENSIONS = 2**26  # bytes ahead of the voxels: nibabel reads them all when it opens a file; CIFTI's are a tenth
_OFFSETS = {348: (108, "f"), 540: (168, "q")}  # length of a NIfTI header -> where it says where voxels begin, and how
_DEFLATE_RATIO = 1032  # most bytes that one byte of a gzip stream can stand for (zlib technical details)
_PAIR = {".hdr": ".img", ".img": ".hdr"}
_SFORM_CODES = range(1, 6)  # nibabel takes any other for 0: no sform
_LENGTHS = {1: ("metre", 1000.0), 2: ("mm", 1.0), 3: ("micron", 0.001)}  # NIfTI's codes of units, and their mm


def voxel_file(image: Nifti1Pair) -> Path:
    """Return the file that holds an opened image's voxels: the `.img` of a pair, else the file itself."""
    return Path(str(image.file_map["image"].filename))


def require_file(path: Path) -> None:
    """Refuse what is missing, a folder, named otherwise, or half of a `.hdr`/`.img` pair."""
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder; one NIfTI file is meant, name a file in it")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; name an existing NIfTI file")
    if not path.is_file():
        raise ValueError(f"{path}: is a pipe or a device; a file is needed, save the volume in one")
    if not path.name.lower().endswith((".nii", ".nii.gz", *_PAIR)):
        got = f"{path}: is not named as NIfTI"
        raise ValueError(f"{got}; .nii, .nii.gz and .hdr/.img are read (.png and .tif as pictures), convert it first")
    partner = path.with_suffix(_PAIR.get(path.suffix, path.suffix))
    if not partner.exists():
        raise FileNotFoundError(f"{path}: its {partner.name} is missing; .hdr and .img are a pair, restore it")


def require_header(head: bytes, path: Path) -> None:
    """Refuse a header, by its first 540 bytes, that nibabel would take without a word: what the three below refuse.

    >>> require_header(b"no NIfTI file, which others refuse", Path("ct.nii.gz"))
    """
    require_extensions(head, path)
    if stored := stored_header(head):
        require_start(stored, path)
        require_spacing(stored, path)


def require_extensions(head: bytes, path: Path) -> None:
    """Refuse a header, by its first 540 bytes, that claims more than `MAX_EXTENSIONS` ahead of the voxels.

    >>> require_extensions(b"no NIfTI file, which others refuse", Path("ct.nii.gz"))
    """
    if len(head) < min(_OFFSETS):  # which others refuse
        return
    for order in "<>":
        (length,) = struct.unpack_from(f"{order}i", head)
        first, kind = _OFFSETS.get(length, (0, "x"))
        for claimed in struct.unpack_from(order + kind, head, first):
            if claimed > MAX_EXTENSIONS:
                got = f"the header claims {claimed:.0f} bytes ahead of the voxels"
                raise ValueError(f"{path}: {got}; {MAX_EXTENSIONS} are allowed, copy the file or mend its header")


def stored_header(head: bytes) -> Nifti1Header | None:
    """Return a header as its file has it, of its first 540 bytes: nibabel mends one as it opens it. None: no NIfTI.

    >>> stored_header(b"no NIfTI file")
    """
    kind = next((kind for kind in (Nifti1Header, Nifti2Header) if kind.may_contain_header(head)), None)
    return kind and kind(head[: kind.sizeof_hdr], check=False)


def require_start(stored: Nifti1Header, path: Path) -> None:
    """Refuse a header whose voxels begin within it, in a single file, or at no whole byte.

    nibabel takes a vox_offset of 0 as it stands and returns the header's bytes as voxels; ITK does not.

    >>> header = Nifti1Header()
    >>> require_start(header, Path("ct.img"))
    >>> require_start(header, Path("ct.nii"))
    Traceback (most recent call last):
    ValueError: ct.nii: vox_offset is 0; a whole number from 352 is allowed in a single file, mend it or export it again
    """
    least = 0 if path.suffix.lower() in _PAIR else stored.single_vox_offset
    start = float(stored["vox_offset"])
    if not (start >= least and start.is_integer()):
        allowed = f"a whole number from {least} is allowed in {'a pair' if least == 0 else 'a single file'}"
        raise ValueError(f"{path}: vox_offset is {start:g}; {allowed}, mend it or export it again")


def require_spacing(stored: Nifti1Header, path: Path) -> None:
    """Refuse a header without sform, as stored, whose pixdim is 0 or less: nibabel would take 1 mm for 0.

    >>> header = Nifti1Header()
    >>> header["dim"][0], header["pixdim"][1:4] = 3, (2, 2, 0)
    >>> require_spacing(header, Path("ct.nii"))
    Traceback (most recent call last):
    ValueError: ct.nii: no sform, and pixdim is 2 x 2 x 0; lengths of voxels above 0 are needed, mend the header
    """
    sizes = stored["pixdim"][1 : 1 + min(int(stored["dim"][0]), 3)]
    if int(stored["sform_code"]) not in _SFORM_CODES and (sizes <= 0).any():
        got = f"no sform, and pixdim is {' x '.join(f'{size:g}' for size in sizes)}"
        raise ValueError(f"{path}: {got}; lengths of voxels above 0 are needed, mend the header")


def length_unit(header: Nifti1Header) -> tuple[str, float]:
    """Return a header's unit of length and how many mm it is; an unknown one is taken for mm.

    >>> header = Nifti1Header()
    >>> header.set_xyzt_units("micron", "sec")
    >>> length_unit(header), length_unit(Nifti1Header())
    (('micron', 0.001), ('unknown', 1.0))
    """
    return _LENGTHS.get(int(header["xyzt_units"]) % 8, ("unknown", 1.0))


def in_mm(image: Nifti1Pair) -> Nifti1Pair:
    """Bring the affine of an image, its header's, to mm; the header stays, and what is written is to take it.

    The numbers are rounded to the header's precision, so that 0.001 m is 1 mm.

    >>> metres = Nifti1Pair(np.zeros((2, 3, 4)), np.diag([0.001, 0.001, 0.003, 1]))
    >>> metres.header.set_xyzt_units("meter")
    >>> in_mm(metres).affine.diagonal().tolist(), float(metres.header["pixdim"][1])
    ([1.0, 1.0, 3.0, 1.0], 0.0010000000474974513)
    """
    _, mm = length_unit(image.header)
    if mm != 1:
        image.affine[:3] = (image.header.get_best_affine()[:3] * mm).astype(image.header["srow_x"].dtype)
    return image


def require_one_volume(image: Nifti1Pair, path: Path, channels: bool = False, flat: bool = False) -> None:
    """Refuse anything but one 3-D volume of real numbers.

    A fourth axis of 1 is fine, one of any size for channels, and two axes alone where `flat` says so.
    """
    shape, dtype = image.shape, image.get_data_dtype()
    got = f"{path}: {len(shape)}-D where 3-D is meant: got shape {shape}, one 3-D volume is allowed"
    if len(shape) < (2 if flat else 3):
        raise ValueError(f"{got}, stack its slices first")
    if min(shape) < 1:
        raise ValueError(f"{path}: got shape {shape}; every axis needs a voxel or more, export it again")
    if (math.prod(shape[3:]) != 1 and not channels) or len(shape) > 4:
        raise ValueError(f"{got}, split it first")
    if dtype.kind not in "iuf":
        kind = image.header.get_value_label("datatype")
        raise ValueError(f"{path}: got voxels of type {kind}; real numbers are allowed, export one channel of it")


def require_affine(image: Nifti1Pair, path: Path) -> None:
    """Refuse an affine that is not finite or not invertible."""
    affine = image.affine
    if affine is None or not np.isfinite(affine).all():
        raise ValueError(f"{path}: got an affine that is not finite; numbers are needed, mend sform or qform")
    # 1e6: far above any ratio of voxel sizes, far below the rounding of a float32 header
    if not np.linalg.cond(affine[:3, :3]) < 1e6:
        got = f"got the singular affine {affine[:3, :3].tolist()}"
        raise ValueError(f"{path}: {got}; three independent axes are needed, mend sform or qform")


def require_pixdim(image: Nifti1Pair, path: Path) -> None:
    """Refuse lengths in other units than mm, and voxel sizes that pixdim contradicts: MONAI's own reader is to read it.

    Readers part there: MONAI's takes metres for mm. Of sizes that disagree nibabel keeps the sform, MONAI's takes the
    qform, whatever its code, and with it perhaps another side of the patient.
    """
    unit, mm = length_unit(image.header)
    if mm != 1:
        mend = f"multiply its sform, pixdim and qoffset by {mm:g} and set xyzt_units to 2"
        raise ValueError(f"{path}: got lengths in the unit {unit}; mm are allowed for training, {mend}")
    sizes, pixdim = voxel_sizes(image.affine), image.header.get_zooms()[:3]
    if not np.allclose(sizes, pixdim, rtol=1e-5) and not _qform_agrees(image):
        got = (
            f"got voxels of {np.round(sizes, 5).tolist()} mm by the sform, {np.round(pixdim, 5).tolist()} mm by pixdim"
        )
        raise ValueError(f"{path}: {got}; readers disagree on such files, make the two agree")


def require_bytes(image: Nifti1Pair, path: Path, most: int = MAX_VOXELS) -> None:
    """Refuse a header that claims more than `most` voxels, or more bytes than its file can hold.

    Exact for plain files; deflate cannot expand a byte to more than 1032.
    """
    voxels = math.prod(image.shape)
    if voxels > most:
        raise ValueError(f"{path}: the header claims {voxels} voxels; {most} are allowed, crop it or raise the limit")
    file = voxel_file(image)
    claimed = cast(ArrayProxy, image.dataobj).offset + voxels * image.get_data_dtype().itemsize
    held = file.stat().st_size * (_DEFLATE_RATIO if file.suffix.lower() == ".gz" else 1)
    if claimed > held:
        got = f"the header claims {claimed} bytes for shape {image.shape}"
        raise ValueError(f"{path}: {got}; {file.name} can hold at most {held}, copy the file or mend its header")


def _qform_agrees(image: Nifti1Pair) -> bool:
    try:
        return np.allclose(image.get_qform(), image.affine, atol=1e-3)
    except (HeaderDataError, ValueError):  # no quaternion at all
        return False


def grid_shift(affine: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """How far two grids (affines of one size) lie apart, in voxels of `other`: what the map between them adds to one.

    >>> grid_shift(np.diag([2.0, 2.0, 5.0, 1.0]), np.diag([2.0, 2.0, 4.0, 1.0]))
    0.25
    """
    return float(np.abs(np.linalg.inv(other) @ affine - np.eye(len(affine))).max())


# What a NIfTI header leaves open about where its voxels lie, in words for a report.

_SHEAR_TOLERANCE = 1e-3  # cosine between two axes, the limit ITK uses


def affine_notes(image: Nifti1Pair) -> tuple[str, ...]:
    """One line for each thing that readers of an invertible affine (nibabel's, RAS+) may take otherwise.

    An sform and a qform that lie more than `GRID_TOLERANCE` voxels apart, or an sform that pixdim contradicts:
    the sform is used. Both codes 0: nibabel's fall-back is used, and sides are a guess. Axes that are sheared are taken
    as they stand; lengths in other units are converted to mm.

    >>> import nibabel as nib
    >>> image = nib.Nifti1Image(np.zeros((3, 4, 5)), np.eye(4))
    >>> affine_notes(image)
    ()
    >>> image.set_qform(np.diag([1.0, 1.0, 2.0, 1.0]), 1)
    >>> affine_notes(image)
    ('sform and qform disagree by up to 4 mm: the sform is used',)
    """
    return tuple(note for note in (_affine_note(image), _shear_note(image.affine), _unit_note(image)) if note)


def _affine_note(image: Nifti1Pair) -> str:
    has_sform, has_qform = (int(image.header[f"{form}_code"]) > 0 for form in ("sform", "qform"))
    if not has_sform:
        guess = "orientation and sides are a guess (nibabel's: x runs to the left), check left and right"
        return "" if has_qform else f"the codes of sform and qform are both 0: {guess}"
    return _disagreement(image) if has_qform else _pixdim_note(image)


def _disagreement(image: Nifti1Pair) -> str:
    try:
        qform = np.diag([*[length_unit(image.header)[1]] * 3, 1]) @ np.asarray(image.get_qform())
    except (HeaderDataError, ValueError):
        return "the qform holds no rotation: the sform is used"
    if not np.isfinite(qform).all():
        return "the qform is not finite: the sform is used"
    if grid_shift(qform, image.affine) <= GRID_TOLERANCE:
        return ""
    return f"sform and qform disagree by up to {_distance(qform, image):.3g} mm: the sform is used"


def _distance(other: NDArray[np.float64], image: Nifti1Pair) -> float:
    """How far apart (mm) two affines take a corner of the grid at most."""
    corners = np.stack(np.meshgrid(*((0, n - 1) for n in image.shape[:3])), axis=-1).reshape(-1, 3)
    return float(np.linalg.norm(apply_affine(other, corners) - apply_affine(image.affine, corners), axis=1).max())


def _pixdim_note(image: Nifti1Pair) -> str:
    sizes = voxel_sizes(image.affine)
    pixdim = np.asarray(image.header.get_zooms()[:3]) * length_unit(image.header)[1]
    if np.allclose(sizes, pixdim, rtol=GRID_TOLERANCE):
        return ""
    return f"voxels are {_joined(sizes)} mm by the sform, {_joined(pixdim)} by pixdim: the sform is used"


def _shear_note(affine: NDArray[np.float64]) -> str:
    directions = affine[:3, :3] / voxel_sizes(affine)
    cosine = float(np.abs(directions.T @ directions - np.eye(3)).max())
    degrees = np.degrees(np.arcsin(min(cosine, 1.0)))
    return f"the axes are sheared: two are {degrees:.3g} degrees off a right angle" if cosine > _SHEAR_TOLERANCE else ""


def _unit_note(image: Nifti1Pair) -> str:
    unit, mm = length_unit(image.header)
    return f"the header's unit of length is the {unit}: lengths are converted to mm" if mm != 1 else ""


def _joined(sizes: NDArray[np.float64]) -> str:
    return " x ".join(f"{size:.5g}" for size in sizes)
