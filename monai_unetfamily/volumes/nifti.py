"""NIfTI volumes in, label maps out on the very same grid.

A header is held against its file before a voxel is read, what cannot be meant is refused in one line, and what
is written is either the whole file or nothing. Nothing here resamples, reorients or guesses.
"""

import gzip
import math
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.filebasedimages import ImageFileError
from nibabel.nifti1 import Nifti1Image, Nifti1Pair
from nibabel.nifti2 import Nifti2Header, Nifti2Image
from nibabel.openers import ImageOpener
from nibabel.spatialimages import HeaderDataError, HeaderTypeError
from numpy.typing import NDArray

MAX_VOXELS = 2**31  # 1024 x 1024 x 2048: 8 GiB as float32, beyond any clinical CT or MR series
_DEFLATE_RATIO = 1032  # most bytes that one byte of a gzip stream can stand for (zlib technical notes)
_PAIR = {".hdr": ".img", ".img": ".hdr"}
_UNREADABLE = (
    *(ImageFileError, HeaderDataError, HeaderTypeError),
    *(ValueError, OverflowError, EOFError, OSError, zlib.error),
)


def open_volume(path: Path) -> Nifti1Pair:
    """Open a NIfTI-1 or NIfTI-2 volume as a nibabel proxy; no voxel is read.

    The image is one 3-D volume: `shape[:3]` voxels, further axes singleton; `affine` (4, 4) maps voxel indices
    to millimetres, RAS+. `.nii`, `.nii.gz` and `.hdr`/`.img` pairs are read.

    Raises:
        FileNotFoundError: no such file, or half of a `.hdr`/`.img` pair.
        IsADirectoryError: a folder.
        ValueError: not NIfTI; not one 3-D volume of real numbers; an affine that is not invertible; a header
            that claims more bytes than its file can hold, or more than `MAX_VOXELS` voxels.

    >>> open_volume(Path("absent.nii.gz"))
    Traceback (most recent call last):
    FileNotFoundError: absent.nii.gz: no such file; name an existing NIfTI file
    """
    _require_file(path)
    image = _load_header(path)
    _require_one_volume(image, path)
    _require_affine(image, path)
    _require_bytes(image, path)
    return image


def read_volume(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Read a volume's voxels (X, Y, Z), scaled by the header's slope and intercept, and its affine (4, 4) in mm.

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
    image = open_volume(path)
    try:
        voxels = _read_voxels(image)
    except _UNREADABLE as error:
        raise ValueError(
            f"{path}: the voxels cannot be read ({_one_line(error)}); the file is damaged or cut off, copy it again"
        ) from error
    require_finite(voxels, path)
    return voxels.reshape(image.shape[:3], order="F"), np.asarray(image.affine, np.float64)


def require_finite(array: NDArray[np.generic], path: Path) -> None:
    """Refuse an array that holds NaN or infinite values: a ValueError that names `path` and their count.

    >>> require_finite(np.array([1.0, np.nan, np.inf]), Path("mr.nii.gz"))
    Traceback (most recent call last):
    ValueError: mr.nii.gz: 2 of 3 voxels are NaN or infinite; only finite values are allowed, replace them first
    """
    bad = array.size - np.count_nonzero(np.isfinite(array))
    if bad:
        raise ValueError(
            f"{path}: {bad} of {array.size} voxels are NaN or infinite; only finite values are allowed,"
            " replace them first"
        )


def write_labels(labels: NDArray[np.integer], like: Path | Nifti1Pair, path: Path) -> None:
    """Write a label map on the grid of the volume `like`, all of it or nothing.

    The file has the shape, affine, sform and qform codes, quaternion, units and description of `like`, and its
    NIfTI version; the smallest unsigned integer type that holds the labels; slope 1, intercept 0, no display
    range. Header extensions are left out: they tell of the source's voxels, and sometimes of the patient.

    Args:
        labels: ids, 0 or more, of the shape of `like` or its first three axes (X, Y, Z).
        like: a NIfTI file or an image of nibabel's.
        path: ends in `.nii.gz` or `.nii`; an existing file is replaced.

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
    smallest = np.min_scalar_type(int(labels.max()))
    header = source.header.copy()
    header.extensions.clear()
    header.set_data_dtype(smallest)
    header["cal_min"] = header["cal_max"] = 0
    single = Nifti2Image if isinstance(header, Nifti2Header) else Nifti1Image
    save_image(single(labels.reshape(source.shape).astype(smallest), source.affine, header), path)


def save_image(image: Nifti1Image, path: Path) -> None:
    """Write a NIfTI image to `path` (`.nii.gz` or `.nii`) by `atomic_file`; the same image gives the same bytes.

    Raises:
        ValueError: another file name.
        OSError: the file cannot be written; what was there before is untouched.
    """
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        raise ValueError(f"{path}: cannot be the name of an output; it must end in .nii.gz or .nii, rename it")
    with atomic_file(path) as stream:
        if path.suffix.lower() == ".nii":
            image.to_stream(stream)
            return
        # level 1 as nibabel's own: noise does not shrink, label maps shrink at any level
        with gzip.GzipFile("", "wb", compresslevel=1, fileobj=stream, mtime=0) as packed:
            image.to_stream(packed)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a stream to a temporary file beside `path` that becomes `path` when the block ends well.

    The bytes are on the disk before the name changes; if anything fails, the temporary file is removed and
    `path` is as it was. An OSError is raised again in one line that names `path`.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     with atomic_file(Path(folder) / "report.txt") as stream:
    ...         _ = stream.write(b"done")
    ...     [p.name for p in Path(folder).iterdir()]
    ['report.txt']
    """
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.part")
    try:
        with temporary.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        reason = f"cannot write ({error.strerror}); name a folder that exists, has space and may be written to"
        raise OSError(error.errno, reason, str(path)) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def list_volumes(inputs: Sequence[Path]) -> list[Path]:
    """List the volumes that `inputs` name: files as given, folders as their sorted `*.nii` and `*.nii.gz`.

    Folders are not searched deeper, and hidden files are passed over.

    Raises:
        FileNotFoundError: an input that does not exist, or a folder without volumes.
        ValueError: two volumes of one `stem`, whose outputs would overwrite each other.
    """
    volumes = [volume for path in inputs for volume in _expand(path)]
    first: dict[str, Path] = {}
    for volume in volumes:
        other = first.setdefault(stem(volume), volume)
        if other is not volume:
            raise ValueError(
                f"{volume}: has the stem of {other}; stems must differ, for outputs are named by them:"
                " rename one, or run them apart"
            )
    return volumes


def stem(path: Path) -> str:
    """Return the file's name without `.nii`, `.nii.gz`, `.hdr` or `.img`.

    >>> stem(Path("scans/case.01.nii.gz"))
    'case.01'
    """
    for suffix in (".nii.gz", ".nii", ".hdr", ".img"):
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.name


def _expand(path: Path) -> list[Path]:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder; name existing NIfTI files or folders of them")
    if not path.is_dir():
        return [path]
    found = [p for p in sorted(path.iterdir()) if p.name.lower().endswith((".nii", ".nii.gz")) and p.is_file()]
    visible = [p for p in found if not p.name.startswith(".")]
    if not visible:
        raise FileNotFoundError(f"{path}: holds no *.nii or *.nii.gz; name a folder that does (none is searched deeper)")
    return visible


def _require_file(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder; one NIfTI file is meant, name a file in it")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; name an existing NIfTI file")
    if not path.name.lower().endswith((".nii", ".nii.gz", *_PAIR)):
        raise ValueError(
            f"{path}: is not named as NIfTI; .nii, .nii.gz and .hdr/.img are read, convert or rename it"
        )
    partner = path.with_suffix(_PAIR.get(path.suffix, path.suffix))
    if not partner.exists():
        raise FileNotFoundError(f"{path}: its {partner.name} is missing; .hdr and .img come as a pair, restore it")


def _load_header(path: Path) -> Nifti1Pair:
    try:
        image = nib.load(path)
    except _UNREADABLE as error:
        raise ValueError(
            f"{path}: cannot be read as NIfTI ({_one_line(error)}); NIfTI-1 and NIfTI-2 are read, convert it first"
        ) from error
    if not isinstance(image, Nifti1Pair):
        kind = type(image).__name__
        raise ValueError(f"{path}: is no NIfTI file but {kind}; NIfTI-1 and NIfTI-2 are read, convert it first")
    return image


def _require_one_volume(image: Nifti1Pair, path: Path) -> None:
    shape, dtype = image.shape, image.get_data_dtype()
    if len(shape) < 3:
        raise ValueError(f"{path}: {len(shape)}-D: got shape {shape}, one 3-D volume is allowed, stack it first")
    if min(shape) < 1:
        raise ValueError(f"{path}: empty: got shape {shape}, every axis needs at least one voxel, export it again")
    if math.prod(shape[3:]) != 1:
        raise ValueError(
            f"{path}: {len(shape)}-D where 3-D is meant: got shape {shape}, one 3-D volume is allowed, split it first"
        )
    if dtype.kind not in "iuf":
        raise ValueError(
            f"{path}: got voxels of type {image.header.get_value_label('datatype')}, real numbers are allowed,"
            " convert it to one channel of integers or floats first"
        )


def _require_affine(image: Nifti1Pair, path: Path) -> None:
    affine = image.affine
    if affine is None or not np.isfinite(affine).all():
        raise ValueError(f"{path}: the affine is not finite; sform or qform must be, mend the header first")
    # 1e6: far above any ratio of voxel sizes, far below the rounding noise (1e7) of a float32 header
    if not np.linalg.cond(affine[:3, :3]) < 1e6:
        raise ValueError(
            f"{path}: the affine is singular: got {affine[:3, :3].tolist()}, three independent axes are needed,"
            " mend the header first"
        )


def _require_bytes(image: Nifti1Pair, path: Path) -> None:
    voxels = math.prod(image.shape)
    if voxels > MAX_VOXELS:
        raise ValueError(
            f"{path}: the header claims {voxels} voxels ({image.shape}); {MAX_VOXELS} are allowed, crop it first"
        )
    claimed = image.dataobj.offset + voxels * image.get_data_dtype().itemsize
    file = Path(image.file_map["image"].filename)
    held = file.stat().st_size * (_DEFLATE_RATIO if file.suffix.lower() == ".gz" else 1)
    if claimed > held:
        raise ValueError(
            f"{path}: the header claims {claimed} bytes of voxels {image.shape}, {file.name} can hold at most"
            f" {held}; the file is cut off or its header wrong, copy it again"
        )


def _read_voxels(image: Nifti1Pair) -> NDArray[np.float32]:
    proxy = image.dataobj
    spec = (proxy.shape, proxy.dtype, proxy.offset, proxy.slope, proxy.inter)
    with ImageOpener(image.file_map["image"].filename) as stream, np.errstate(over="ignore"):
        # float64 beyond float32 becomes infinite here and is refused with the count
        voxels = np.asarray(ArrayProxy(stream, spec, mmap=False), dtype=np.float32)
        while stream.read(1 << 20):  # only at its end does gzip compare its checksum
            pass
    return voxels


def _require_labels(labels: NDArray[np.integer], shape: tuple[int, ...], path: Path) -> None:
    if labels.dtype.kind not in "iu":
        raise ValueError(f"{path}: got labels of type {labels.dtype}; integers are allowed, convert them first")
    if labels.shape not in (shape, shape[:3]):
        raise ValueError(
            f"{path}: got labels of shape {labels.shape}; the source's shape {shape} is allowed, bring them to its grid"
        )
    if labels.min() < 0:
        raise ValueError(f"{path}: got label {labels.min()}; ids from 0 up are allowed, renumber them")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
