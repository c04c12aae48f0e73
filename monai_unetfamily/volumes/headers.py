"""What must hold of a NIfTI file before a voxel is read: a check passes, or raises one line that names it."""

import math
import struct
from pathlib import Path
from typing import cast

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.arrayproxy import ArrayProxy
from nibabel.nifti1 import Nifti1Pair
from nibabel.spatialimages import HeaderDataError

MAX_VOXELS = 2**31  # 1024 x 1024 x 2048: 8 GiB as float32, beyond any clinical CT or MR series
MAX_EXTENSIONS = 2**26  # bytes ahead of the voxels: nibabel reads them all when it opens a file; CIFTI's are a tenth
_OFFSETS = {348: (108, "f"), 540: (168, "q")}  # length of a NIfTI header -> where it says where voxels begin, and how
_DEFLATE_RATIO = 1032  # most bytes that one byte of a gzip stream can stand for (zlib technical details)
_PAIR = {".hdr": ".img", ".img": ".hdr"}


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
    """Refuse an affine whose voxel sizes pixdim contradicts: for what MONAI's own reader is to read.

    Readers part there: nibabel keeps the sform, MONAI's takes the qform, whatever its code, and with it perhaps
    another side of the patient.
    """
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
