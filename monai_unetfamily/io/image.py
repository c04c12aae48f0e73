"""Read one image of any format: voxels as float32, its grid, and notes on its header."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.nifti1 import Nifti1Pair
from numpy.typing import NDArray
from PIL import Image as Pictures

from monai_unetfamily.io.dicom import SEGMENTATION
from monai_unetfamily.io.formats import NIFTI
from monai_unetfamily.io.header_checks import GRID_TOLERANCE, MAX_VOXELS, affine_notes, grid_shift, in_mm
from monai_unetfamily.io.image2d import read_image2d
from monai_unetfamily.io.nifti import label_image, open_volume, read_voxels

# Studies into memory: voxels as float32, the grid they lie on, and what was odd about either.


_NAN = ("refuse", "zero")
_LABELS = 256  # most values that a label map is taken to have
_ALIKE = 0.4  # of pairs of neighbours: contours of organs have 0.5 to 0.9, MR and CT of 6 to 8 bits 0.02 to 0.24
_SAMPLE = 32  # voxels along an axis, about
_KINDS = "NIfTI, .mha, .mhd, .nrrd, PNG, TIFF and folders of DICOM"
Voxels = NDArray[np.float32]
Gaps = Literal["refuse", "resample"]  # as in dicom/volume.py, imported with SimpleITK when it is needed


@dataclass(frozen=True)
class Study:
    """One image to segment: what its outputs are called, and the files that hold it."""

    name: str  # of its outputs, no suffix; may hold "/" (BIDS: sub-01/anat/sub-01_T1w)
    files: tuple[Path, ...]  # one a channel; of a DICOM series its slices, sorted by position (the folder: none fits)
    kind: str  # "nifti", "itk" (.mha .mhd .nrrd), "dicom", "picture"
    channel_dim: int | None = None  # axis of a 4-D file that counts channels
    notes: tuple[str, ...] = ()  # one line each: what was chosen or passed over; goes into the report


@dataclass(frozen=True)
class Image:
    """What a study holds."""

    voxels: NDArray[np.float32]  # (C, X, Y, Z), or (C, rows, columns) of a picture
    grid: Nifti1Pair | None  # its header and affine are those of the label map; no voxels needed; None: picture
    notes: tuple[str, ...] = ()  # e.g. "sform and qform disagree: the sform is used"


def read_study(
    study: Study,
    *,
    nan: str = "refuse",
    max_voxels: int = MAX_VOXELS,
    gaps: Gaps = "refuse",
    channels: int | None = None,
) -> Image:
    """Read what a study holds: voxels as stored and scaled by their header, on the grid of their files.

    Nothing is resampled, turned or dropped, but for what `gaps` says of DICOM; each file's header is compared with its
    size and `max_voxels` before a voxel is read. `Image.notes` says what was chosen where a header leaves it open.

    Args:
        study: of `find_studies`.
        nan: "refuse" NaN and infinite voxels, or set them to "zero" and note how many.
        max_voxels: the most that a file or a DICOM series may claim; pictures have a limit of their own.
        gaps: of a DICOM series, as `io.dicom.read_series` takes it.
        channels: how many there must be; None: any number.

    Raises:
        FileNotFoundError: a file that is missing; with its channel and case where it is one of several.
        ValueError: what `open_volume`, `read_voxels`, `read_itk`, `read_series` and `read_image2d` refuse; a 4-D file
            without `channel_dim`; channels on different grids, or of another number; NaN or infinite voxels; one
            value in all voxels; an unknown option.

    >>> import nibabel as nib
    >>> from tempfile import TemporaryDirectory
    >>> from monai_unetfamily.data import find_studies
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "ct.nii.gz"
    ...     nib.save(nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.diag([2, 2, 5, 1])), path)
    ...     image = read_study(find_studies([path]).studies[0])
    >>> image.voxels.shape, image.grid.affine.diagonal().tolist(), image.notes
    ((1, 2, 3, 4), [2.0, 2.0, 5.0, 1.0], ())
    """
    _require_option(nan)
    require_files(study)
    image = _read(study, max_voxels, gaps)
    where = study.files[0].parent if study.kind == "dicom" else study.files[0]
    _require_channels(len(image.voxels), channels, where)
    return usable(image, where, nan=nan)


def usable(image: Image, where: Path | str, *, nan: str = "refuse") -> Image:
    """Return the image, with NaN and infinity set to 0 and noted where `nan` is "zero".

    Channels of one value, and those that look like a label map, are noted.

    Raises:
        ValueError: NaN or infinite voxels; a volume with one value in all voxels; an unknown option.

    >>> usable(Image(np.array([[[[0, np.nan]]]], np.float32), None), "mr", nan="zero").notes
    ('1 of 2 voxels are NaN or infinite: they are set to 0', 'channel 0 holds the value 0 everywhere')
    """
    _require_option(nan)
    voxels, replaced = _finite(image.voxels, nan, where)
    flat = _require_contrast(voxels, where, picture=image.grid is None)
    return Image(voxels, image.grid, (*image.notes, *replaced, *flat, *_label_notes(voxels)))


def require_files(study: Study) -> None:
    """Refuse a study one of whose files is missing: a FileNotFoundError that names its channel or slice.

    >>> require_files(Study("ct", (Path("absent.nii"),), "nifti"))
    Traceback (most recent call last):
    FileNotFoundError: absent.nii: no such file; add it, or take this case out
    """
    for number, file in enumerate(study.files):
        if not file.exists():
            gone = "is a link to nothing" if file.is_symlink() else "no such file"
            part = f", {'slice' if study.kind == 'dicom' else 'channel'} {number} of {study.name!r}"
            raise FileNotFoundError(
                f"{file}: {gone}{part if len(study.files) > 1 else ''}; add it, or take this case out"
            )


def _read(study: Study, max_voxels: int, gaps: Gaps) -> Image:
    if study.kind == "picture":
        return _read_images2d(study.files)
    if study.kind == "itk":
        return _read_itk(study.files, max_voxels)
    return _read_series(study, max_voxels, gaps) if study.kind == "dicom" else _read_nifti(study, max_voxels)


def open_nifti(study: Study, max_voxels: int = MAX_VOXELS) -> list[tuple[Nifti1Pair, int | None, Nifti1Pair]]:
    """Open the files of a NIfTI study, a channel each: image, the axis (0 to 3) of its channels, spatial grid.

    No voxel is read.

    Raises:
        ValueError: a file of another kind, what `open_volume` refuses, a 4-D file without `channel_dim`, channels on
            different grids.

    >>> open_nifti(Study("ct", (Path("ct.xyz"),), "nifti"))
    Traceback (most recent call last):
    ValueError: ct.xyz: is of a kind that is not read; ...
    """
    for file in study.files:
        if file.name.lower().endswith(SEGMENTATION):
            raise ValueError(f"{file}: is a DICOM Segmentation, which is labels; name the scan that they are of")
        if not file.name.lower().endswith(NIFTI):
            raise ValueError(f"{file}: is of a kind that is not read; {_KINDS} are, convert it first")
    opened = [open_volume(file, channels=True, max_voxels=max_voxels) for file in study.files]
    axes = [_channel_axis(image, study.channel_dim, file) for image, file in zip(opened, study.files, strict=True)]
    grids = [_spatial_grid(image, axis) for image, axis in zip(opened, axes, strict=True)]
    require_one_grid(grids, study.files)
    return list(zip(opened, axes, grids, strict=True))


def _read_nifti(study: Study, max_voxels: int) -> Image:
    opened = open_nifti(study, max_voxels)
    parts = [
        _channels_first(read_voxels(image, file), axis)
        for (image, axis, _), file in zip(opened, study.files, strict=True)
    ]
    _, axis, grid = opened[0]
    notes = affine_notes(grid)
    if axis not in (None, 3):
        notes = (*notes, f"channels are on axis {axis}: the header's affine is taken for the other three axes")
    return Image(_joined(parts), grid, notes)


def _channel_axis(image: Nifti1Pair, channel_dim: int | None, file: Path) -> int | None:
    """The axis (0 to 3) that counts channels; None of one volume."""
    shape = image.shape
    if channel_dim is None:
        if math.prod(shape[3:]) == 1:
            return None
        got = f"4-D where 3-D is meant: got shape {shape}"
        raise ValueError(f"{file}: {got}; split it, or say which axis counts channels (--channel-dim 3)")
    if len(shape) != 4 or not -4 <= channel_dim < 4:
        got = f"got shape {shape} and channels on axis {channel_dim}"
        raise ValueError(f"{file}: {got}; a 4-D file and one of its axes, 0 to 3, are needed, leave --channel-dim out")
    return channel_dim % 4


def _spatial_grid(image: Nifti1Pair, axis: int | None) -> Nifti1Pair:
    if axis is None:
        return image
    spatial = [size for other, size in enumerate(image.shape) if other != axis]
    return in_mm(label_image(np.broadcast_to(np.uint8(0), spatial), image))  # no memory but one voxel's


def _channels_first(voxels: Voxels, axis: int | None) -> Voxels:
    if axis is None:
        return voxels.reshape(1, *voxels.shape[:3], order="F")
    return np.moveaxis(voxels, axis, 0)


def _read_itk(files: Sequence[Path], max_voxels: int) -> Image:
    from monai_unetfamily.io.itk import read_itk

    voxels, grids, notes = zip(*(read_itk(file, max_voxels) for file in files), strict=True)
    require_one_grid(grids, files)
    return Image(_joined([part[None] for part in voxels]), grids[0], notes[0])


def _read_series(study: Study, max_voxels: int, gaps: Gaps) -> Image:
    if study.files[0].is_dir():
        raise ValueError(study.notes[0])  # why no series could be chosen there
    from monai_unetfamily.io.dicom import read_series

    voxels, grid, notes = read_series(study.files, gaps=gaps, max_voxels=max_voxels)
    return Image(voxels[None], grid, notes)


def _read_images2d(files: Sequence[Path]) -> Image:
    parts = [np.moveaxis(np.atleast_3d(read_image2d(file)), -1, 0) for file in files]
    for part, file in zip(parts, files, strict=True):
        if part.shape[1:] != parts[0].shape[1:]:
            got = f"got {part.shape[1:]} pixels, {files[0]} has {parts[0].shape[1:]}"
            raise ValueError(f"{file}: {got}; the channels of one picture need one size, export them again")
    return Image(_joined(parts), None)


def _joined(parts: Sequence[Voxels]) -> Voxels:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def require_one_grid(grids: Sequence[Nifti1Pair], files: Sequence[Path | str]) -> None:
    """Refuse channels whose shapes differ, or whose affines do by more than `GRID_TOLERANCE`."""
    for grid, file in zip(grids[1:], files[1:], strict=True):
        shift = grid_shift(grid.affine, grids[0].affine)
        if grid.shape[:3] != grids[0].shape[:3]:
            got = f"got shape {grid.shape[:3]}, {files[0]} has {grids[0].shape[:3]}"
            raise ValueError(f"{file}: {got}; the channels of one image need one grid, resample them to it first")
        if shift > GRID_TOLERANCE:
            got = f"lies {shift:.3g} voxels off {files[0]}"
            raise ValueError(f"{file}: {got}; the channels of one image need one grid, resample them to it first")


def _require_channels(got: int, channels: int | None, where: Path) -> None:
    if channels not in (None, got):
        ways = "files named case_0000, case_0001, ..., a CSV with image_0, image_1, ..., or a 4-D file (--channel-dim)"
        raise ValueError(f"{where}: got {got} channel{'s' * (got > 1)}, {channels} are needed; give {ways}")


def _require_option(nan: str) -> None:
    if nan not in _NAN:
        raise ValueError(f"got nan={nan!r}; {' or '.join(map(repr, _NAN))} is allowed, choose one of them")


def _finite(voxels: Voxels, nan: str, where: Path | str) -> tuple[Voxels, tuple[str, ...]]:
    good = np.isfinite(voxels)
    bad = voxels.size - int(np.count_nonzero(good))
    if not bad:
        return voxels, ()
    got = f"{bad} of {voxels.size} voxels are NaN or infinite"
    if nan == "refuse":
        raise ValueError(f"{where}: {got}; finite values are allowed, replace them first or with 0 (--nan zero)")
    return np.where(good, voxels, np.float32(0)), (f"{got}: they are set to 0",)


def _require_contrast(voxels: Voxels, where: Path | str, picture: bool) -> tuple[str, ...]:
    """Refuse a volume of one value, and name the channels that have but one; a slice may be empty."""
    flat = [channel for channel, part in enumerate(voxels) if part.min() == part.max()]
    if len(flat) == len(voxels) and not picture:
        got = f"every voxel holds the value {voxels.flat[0]:g}"
        raise ValueError(f"{where}: {got}; there is nothing to segment in it, export the image again")
    return tuple(f"channel {channel} holds the value {voxels[channel].flat[0]:g} everywhere" for channel in flat)


def _label_notes(voxels: Voxels) -> tuple[str, ...]:
    """Name the channels that look like a label map: a few whole numbers from 0, mostly in areas of one value.

    Neighbours are compared where one of them at least is no background, which is the most frequent value, nor the
    highest value of three or more, at which a scan of 8 bits may be saturated: it has few values, too, but noise.
    """
    notes = []
    for channel, part in enumerate(voxels):
        sample = part[tuple(slice(None, None, -(-size // _SAMPLE)) for size in part.shape)]
        values, counts = np.unique(sample, return_counts=True)
        if not 1 < len(values) <= _LABELS or values[0] < 0 or part.min() < 0 or not (part == np.rint(part)).all():
            continue
        inside = (part != values[counts.argmax()]) & ((part != part.max()) | (len(values) == 2))
        if (alike := _equal_neighbours(part, inside)) >= _ALIKE:
            which = f"channel {channel}" if len(voxels) > 1 else "the image"
            got = f"whole numbers from {part.min():g} to {part.max():g}, {alike:.0%} of neighbours equal"
            notes.append(f"{which} looks like a label map ({got}): a scan is needed, check which file was named")
    return tuple(notes)


def _equal_neighbours(part: Voxels, inside: NDArray[np.bool_]) -> float:
    """The share of pairs of neighbours along any axis that are equal, of those one of which is inside."""
    pairs = equal = 0
    for axis in range(part.ndim):
        one, other = ([slice(None)] * part.ndim for _ in range(2))
        one[axis], other[axis] = slice(1, None), slice(None, -1)
        counted = inside[tuple(one)] | inside[tuple(other)]
        pairs += int(np.count_nonzero(counted))
        equal += int(np.count_nonzero(counted & (part[tuple(one)] == part[tuple(other)])))
    return equal / pairs if pairs else 0.0


# How large a study is, by its headers alone.


@dataclass(frozen=True)
class Probe:
    """What headers say of a study.

    Attributes:
        shape: voxels per axis, or pixels of a picture.
        spacing: their size, mm; of a picture 1.
        axes: along which of the patient's axes each of them runs most: 0 is left to right, 1 back to front, 2 up.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    axes: tuple[int, ...]


def probe_study(study: Study, max_voxels: int = MAX_VOXELS) -> Probe:
    """Look at the headers of a study; no voxel is read, so that damage further on is not seen.

    Args:
        study: of `find_studies`.
        max_voxels: the most that a file or a DICOM series may claim.

    Raises:
        FileNotFoundError, ValueError: as `read_study` words it, what the header alone shows to be unreadable.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "ct.nii.gz"
    ...     nib.save(nib.Nifti1Image(np.zeros((4, 3, 2), np.int16), np.diag([2, 2, 5, 1])), path)
    ...     probe_study(Study("ct", (path,), "nifti"))
    Probe(shape=(4, 3, 2), spacing=(2.0, 2.0, 5.0), axes=(0, 1, 2))
    """
    require_files(study)
    return _PROBES[study.kind](study, max_voxels)


def _nifti(study: Study, max_voxels: int) -> Probe:
    _, _, grid = open_nifti(study, max_voxels)[0]
    spacing = tuple(float(f"{mm:.5g}") for mm in voxel_sizes(grid.affine))
    return Probe(grid.shape[:3], spacing, _patient_axes(np.asarray(grid.affine)))


def _itk(study: Study, max_voxels: int) -> Probe:
    from monai_unetfamily.io.itk import open_itk

    (reader, affine), *_ = [open_itk(file, max_voxels) for file in study.files]
    return Probe(reader.GetSize(), reader.GetSpacing(), _patient_axes(affine))


def _dicom(study: Study, max_voxels: int) -> Probe:
    from monai_unetfamily.io.dicom import open_slice, require_size, sort_slices

    if study.files[0].is_dir():
        raise ValueError(study.notes[0])
    ends = [open_slice(study.files[0]), open_slice(study.files[-1])]
    _, offsets = sort_slices(ends)
    step = float(offsets[-1, 2]) / max(1, len(study.files) - 1)
    shape, spacing = (*ends[0].size, len(study.files)), (*map(float, ends[0].spacing), step)
    require_size(shape, study.files[0].parent, max_voxels)
    return Probe(shape, spacing, _patient_axes(ends[0].axes.T))


def _picture(study: Study, max_voxels: int) -> Probe:
    try:
        with Pictures.open(study.files[0]) as picture:
            columns, rows = picture.size
    except OSError as error:
        raise ValueError(f"{study.files[0]}: cannot be read as a picture; copy or export it again") from error
    return Probe((rows, columns), (1.0, 1.0), (0, 1))


def _patient_axes(affine: NDArray[np.float64]) -> tuple[int, ...]:
    square = np.eye(4)
    square[:3, :3] = affine[:3, :3]
    return tuple(int(axis) for axis in nib.io_orientation(square)[:, 0])


_PROBES: dict[str, Callable[[Study, int], Probe]] = {"nifti": _nifti, "itk": _itk, "dicom": _dicom, "picture": _picture}
