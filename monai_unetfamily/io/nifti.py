"""NIfTI volumes in, label maps out on the very same grid.

A header is compared with its file before a voxel is read, what cannot be meant is refused in one line, and
what is written is either the whole file or nothing. Nothing here resamples, reorients or guesses.
"""

import gzip
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.filebasedimages import ImageFileError
from nibabel.nifti1 import Nifti1Image, Nifti1Pair
from nibabel.nifti2 import Nifti2Header, Nifti2Image
from nibabel.openers import ImageOpener
from nibabel.spatialimages import HeaderDataError, HeaderTypeError
from numpy.typing import DTypeLike, NDArray

from monai_unetfamily.io.atomic import atomic_file
from monai_unetfamily.io.header_checks import (
    MAX_VOXELS,
    in_mm,
    require_affine,
    require_bytes,
    require_file,
    require_header,
    require_one_volume,
    voxel_file,
)
from monai_unetfamily.io.label_table import Label, table_extensions

Labels = NDArray[np.integer[Any]]  # label ids (X, Y, Z)

MAX_BEHIND = 2**26  # bytes that may follow the voxels
_LONGEST_HEADER = 540  # bytes: NIfTI-2's
_UNREADABLE = (
    *(ImageFileError, HeaderDataError, HeaderTypeError),
    *(ValueError, OverflowError, EOFError, OSError, zlib.error),
)


def open_volume(path: Path, channels: bool = False, max_voxels: int = MAX_VOXELS, *, flat: bool = False) -> Nifti1Pair:
    """Open a NIfTI-1 or NIfTI-2 volume as a nibabel proxy; no voxel is read.

    The image is one 3-D volume: `shape[:3]` voxels, further axes singleton; `affine` (4, 4) maps voxel
    indices to millimetres, RAS+, whatever the unit of length of the header, which stays as it is in the file. `.nii`,
    `.nii.gz` and `.hdr`/`.img` pairs are read.

    Args:
        path: of the file.
        channels: whether a fourth axis may be longer than 1, as that of `io.write_masks`.
        max_voxels: the most that a header may claim.
        flat: whether two axes are enough: a picture.

    Raises:
        FileNotFoundError: no such file, or half of a `.hdr`/`.img` pair.
        IsADirectoryError: a folder.
        ValueError: not NIfTI; not one 3-D volume of real numbers; an affine that is not invertible, or would be made of
            a pixdim of 0; voxels that begin within the header; a header that claims more bytes than its file can hold,
            or more than `max_voxels` voxels.

    >>> open_volume(Path("absent.nii.gz"))
    Traceback (most recent call last):
    FileNotFoundError: absent.nii.gz: no such file; name an existing NIfTI file
    """
    require_file(path)
    image = _load_header(path)
    require_one_volume(image, path, channels, flat)
    require_affine(image, path)
    require_bytes(image, path, max_voxels)
    return in_mm(image)


def read_volume(path: Path, channels: bool = False) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Read voxels (X, Y, Z), scaled by the header's slope and intercept, and the affine (4, 4) to mm, RAS+.

    With `channels`, voxels are (X, Y, Z, C), a 3-D file's (X, Y, Z, 1).

    Raises what `open_volume` raises, and ValueError for a file that is cut off or damaged (gzip checksums are
    verified) and for NaN or infinite voxels.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "ct.nii.gz"
    ...     save_image(nib.Nifti1Image(np.full((2, 3, 4), 40, np.int16), np.diag([2.0, 2.0, 5.0, 1.0])), path)
    ...     voxels, affine = read_volume(path)
    >>> voxels.shape, voxels.dtype.name, affine.diagonal().tolist()
    ((2, 3, 4), 'float32', [2.0, 2.0, 5.0, 1.0])
    """
    image = open_volume(path, channels)
    voxels = read_voxels(image, path)
    require_finite(voxels, path)
    shape = (*image.shape[:3], -1) if channels else image.shape[:3]
    return voxels.reshape(shape, order="F"), np.asarray(image.affine, np.float64)


def read_voxels(image: Nifti1Pair, path: Path) -> NDArray[np.float32]:
    """Read the voxels, of the image's shape, of what `open_volume` opened at `path`, NaN and infinity as they are.

    Raises:
        ValueError: the file is cut off or damaged.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "ct.nii.gz"
    ...     save_image(nib.Nifti1Image(np.full((2, 3, 4, 1), 40, np.int16), np.eye(4)), path)
    ...     read_voxels(open_volume(path), path).shape
    (2, 3, 4, 1)
    """
    try:
        with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite here and is refused with the count
            return _read_whole(image, np.float32)
    except _UNREADABLE as error:
        raise _damaged(path, error) from error


def read_stored(image: Nifti1Pair, path: Path) -> NDArray[Any]:
    """Read the voxels of what `open_volume` opened at `path` in the type they are stored in, if they are not scaled.

    Unscaled voxels of an uncompressed file are a memory map, copied where it is written to; scaled ones are those of
    `read_voxels`.

    Raises:
        ValueError: the file is cut off or damaged.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "ct.nii.gz"
    ...     save_image(nib.Nifti1Image(np.full((2, 3, 4), 40, np.int16), np.eye(4)), path)
    ...     read_stored(open_volume(path), path).dtype.name
    'int16'
    """
    proxy = cast(ArrayProxy, image.dataobj)
    if (proxy.slope, proxy.inter) != (1, 0):
        return read_voxels(image, path)
    try:
        plain = voxel_file(image).suffix.lower() != ".gz"
        return proxy.get_unscaled() if plain else _read_whole(image, image.get_data_dtype())
    except _UNREADABLE as error:
        raise _damaged(path, error) from error


def require_finite(array: NDArray[np.generic], path: Path) -> None:
    """Refuse an array that holds NaN or infinite values: a ValueError that names `path` and their count.

    >>> require_finite(np.array([1.0, np.nan, np.inf]), Path("mr.nii.gz"))
    Traceback (most recent call last):
    ValueError: mr.nii.gz: 2 of 3 voxels are NaN or infinite; finite values are allowed, replace them first
    """
    bad = array.size - np.count_nonzero(np.isfinite(array))
    if bad:
        got = f"{bad} of {array.size} voxels are NaN or infinite"
        raise ValueError(f"{path}: {got}; finite values are allowed, replace them first")


def write_labels(
    labels: NDArray[np.integer], like: Path | Nifti1Pair, path: Path, table: Mapping[int, Label] | None = None
) -> None:
    """Write a label map on the grid of the volume `like`, all of it or nothing.

    The file has the shape, affine, sform and qform codes, quaternion, units and description of `like`, and
    its NIfTI version; the smallest unsigned integer type that holds the labels; slope 1, intercept 0, no
    display range. Header extensions are left out: they tell of the source's voxels, or of the patient. A `table` gets
    ones of our own, and marks the values as labels (intent code 1002), which FSLeyes, MRIcroGL and NiiVue look at.

    Args:
        labels: ids, 0 or more, of the shape of `like` or its first three axes (X, Y, Z).
        like: a NIfTI file or an image of nibabel's.
        path: ends in `.nii.gz` or `.nii`; an existing file is replaced.
        table: names and colours to keep in the file, as `label_table.label_table` makes them.

    Raises:
        ValueError: negative or non-integer labels, another shape, another file name, an unusable `like`.
        OSError: the file cannot be written; what was there before is untouched.

    >>> from tempfile import TemporaryDirectory
    >>> ct = nib.Nifti1Image(np.zeros((2, 3, 4), np.int16), np.diag([2.0, 2.0, 5.0, 1.0]))
    >>> with TemporaryDirectory() as folder:
    ...     write_labels(np.full((2, 3, 4), 5), ct, Path(folder) / "labels.nii.gz")
    ...     open_volume(Path(folder) / "labels.nii.gz").get_data_dtype().name
    'uint8'
    """
    source = open_volume(like) if isinstance(like, Path) else like
    _require_labels(labels, source.shape, path)
    image = label_image(labels.reshape(source.shape), source)
    if table is not None:
        image.header.set_intent("label")
        image.header.extensions.extend(table_extensions([table]))
    save_image(image, path)


def label_image(labels: NDArray[np.integer], source: Nifti1Pair) -> Nifti1Image:
    """Labels, 0 or more, under the header of `source` as `write_labels` keeps it; nothing is written.

    The affine is that of the header, in its unit of length.

    >>> ct = nib.Nifti1Image(np.zeros((2, 3, 4), np.int16), np.diag([2.0, 2.0, 5.0, 1.0]))
    >>> label_image(np.full((2, 3, 4), 5), ct).get_data_dtype().name
    'uint8'
    """
    smallest = np.min_scalar_type(int(labels.max()))
    header = source.header.copy()
    header.extensions.clear()
    header.set_data_dtype(smallest)
    header["cal_min"] = header["cal_max"] = 0
    single = Nifti2Image if isinstance(header, Nifti2Header) else Nifti1Image
    return single(labels.astype(smallest, copy=False), header.get_best_affine(), header)  # in the header's unit


def save_image(image: Nifti1Image, path: Path) -> None:
    """Write an image to `path` (`.nii.gz` or `.nii`) whole or not at all; equal images give equal bytes.

    Raises:
        ValueError: another file name.
        OSError: the file cannot be written; what was there before is untouched.
    """
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        raise ValueError(f"{path}: cannot name an output; .nii.gz and .nii are allowed, rename it")
    with atomic_file(path) as stream:
        if path.suffix.lower() == ".nii":
            image.to_stream(stream)
            return
        # level 1 as nibabel's own: noise does not shrink, label maps shrink at any level
        with gzip.GzipFile("", "wb", compresslevel=1, fileobj=stream, mtime=0) as packed:
            image.to_stream(packed)


def _load_header(path: Path) -> Nifti1Pair:
    allowed = "whole NIfTI-1 and NIfTI-2 files are read, convert it or copy it again"
    require_header(_read_head(path), path)
    try:
        image = nib.load(path)
    except _UNREADABLE as error:
        raise ValueError(f"{path}: cannot be read as NIfTI ({_one_line(error)}); {allowed}") from error
    if not isinstance(image, Nifti1Pair):
        raise ValueError(f"{path}: is no NIfTI file but a {type(image).__name__}; {allowed}")
    return image


def _read_head(path: Path) -> bytes:
    header = path.with_suffix(".hdr") if path.suffix.lower() == ".img" else path
    try:
        with ImageOpener(str(header)) as stream:
            return bytes(stream.read(_LONGEST_HEADER))
    except _UNREADABLE:  # as nibabel says better
        return b""


def _read_whole(image: Nifti1Pair, dtype: DTypeLike) -> NDArray[Any]:
    proxy = cast(ArrayProxy, image.dataobj)
    spec = (proxy.shape, proxy.dtype, proxy.offset, proxy.slope, proxy.inter)
    with ImageOpener(str(voxel_file(image))) as stream:
        voxels = np.asarray(ArrayProxy(stream, spec, mmap=False), dtype=dtype)
        _read_on(stream)
    return voxels


def _read_on(stream: ImageOpener) -> None:
    """To the end, where gzip compares its checksum; not through gigabytes that a few bytes unpack to."""
    left = MAX_BEHIND
    while got := len(stream.read(1 << 20)):
        left -= got
        if left < 0:
            raise ValueError(f"more than {MAX_BEHIND} bytes follow them")


def _require_labels(labels: NDArray[np.integer], shape: tuple[int, ...], path: Path) -> None:
    if labels.dtype.kind not in "iu":
        raise ValueError(f"{path}: got labels of type {labels.dtype}; integers are allowed, convert them first")
    if labels.shape not in (shape, shape[:3]):
        got = f"got labels of shape {labels.shape}"
        raise ValueError(f"{path}: {got}; {shape} as the source's is allowed, bring them to its grid")
    if labels.min() < 0:
        raise ValueError(f"{path}: got label {labels.min()}; ids from 0 up are allowed, renumber them")


def _damaged(path: Path, error: BaseException) -> ValueError:
    return ValueError(f"{path}: the voxels cannot be read ({_one_line(error)}); a whole file is needed, copy it again")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
