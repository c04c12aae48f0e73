"""Read 2-D images (PNG, TIFF), and write 2-D label maps as PNG."""

import os
import re
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError
from PIL.ExifTags import Base as Tag
from PIL.TiffImagePlugin import TiffImageFile

from monai_unetfamily.io.atomic import atomic_file
from monai_unetfamily.io.nifti import require_finite

# Damage that a decoder in C reports on standard error alone, and decodes on: a refusal here.


_DAMAGE = (
    *(b"Corrupt JPEG data", b"Premature end of JPEG file", b"Inconsistent progression sequence"),  # libjpeg's
    b"JPEGLib: ",  # libtiff's, of whatever libjpeg has against a stream
)
_STDERR = 2
_redirecting = Lock()  # standard error is the process's, not the thread's


@contextmanager
def refuse_damaged_jpeg(path: Path) -> Iterator[None]:
    """Refuse `path` where libjpeg, which GDCM and libtiff decode with, says in the block that its stream is damaged.

    They return the pixels up to there and whatever follows. Other text that reaches standard error meanwhile, from
    other threads too, is passed on when the block ends; a process that another thread starts meanwhile writes its own
    nowhere. Where there is no standard error, nothing is seen.

    Raises:
        ValueError: the stream is damaged.

    >>> with refuse_damaged_jpeg(Path("IM1")):
    ...     _ = os.write(2, b"Premature end of JPEG file")
    Traceback (most recent call last):
    ValueError: IM1: its pixel data are damaged (Premature end of JPEG file); whole files are read, copy it again
    """
    with _redirecting, TemporaryFile() as stream:
        try:
            terminal = os.dup(_STDERR)
        except OSError:
            yield
            return
        os.dup2(stream.fileno(), _STDERR)
        try:
            yield
        finally:
            os.dup2(terminal, _STDERR)
            os.close(terminal)
            stream.seek(0)
            lines = stream.readlines()
            damage = [line for line in lines if line.startswith(_DAMAGE)]
            os.write(_STDERR, b"".join(line for line in lines if line not in damage))
    if damage:
        got = f"its pixel data are damaged ({damage[0].decode('latin-1').strip()})"
        raise ValueError(f"{path}: {got}; whole files are read, copy it again")


# 2-D pictures in (PNG, TIFF), label maps out as PNG of the same width and height.
#
# A picture is an array of rows and columns as it is seen: row 0 at the top, column 0 on the left. Nothing is turned,
# scaled or mixed, and what would need it is refused in one line: palettes and alpha in images, colours in label maps,
# an orientation tag that asks for a turn, greyscale of 2 and 4 bits and RGB of 16, which Pillow would rescale. The
# resolution that a file may state (dpi) is not used: a picture has pixels and no millimetres.

SUFFIXES = (".png", ".tif", ".tiff")
MAX_PIXELS = 2**26  # 8192 x 8192: 256 MiB as float32
MAX_VALUE = 65535  # of a 16-bit PNG

_GREY = {"1": (1,), "L": (8,), "I;16": (16,), "I;16B": (16,), "I": (16,), "F": (32, 64)}  # Pillow's mode -> bits
_IMAGES = _GREY | {"RGB": (8,)}
_LABELS = _GREY | {"P": (1, 2, 4, 8)}
_NAMES = {"P": "a palette", "PA": "a palette with alpha", "LA": "greyscale with alpha", "RGBA": "RGB with alpha"}
_NAMES |= dict.fromkeys(_GREY, "greyscale")
_IMAGES_ALLOWED = "greyscale of 1, 8 or 16 bits or float, and RGB of 8 bits, without palette and alpha, are allowed"
_LABELS_ALLOWED = "ids as greyscale of 1, 8 or 16 bits, float, or palette index are allowed, no colours and no alpha"
_UPRIGHT = 1
_SIGNED = 2  # TIFF's SampleFormat
_PLANES = 2  # TIFF's PlanarConfiguration: each colour apart
_COMPRESSIONS = ("raw", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits", "jpeg", "zstd")  # Pillow's names
_DEFLATE = ("tiff_adobe_deflate", "tiff_deflate")
_STRIPS = (Tag.StripOffsets, Tag.StripByteCounts)
_CHUNK = 1 << 16  # bytes: what they unpack to fits in memory at any ratio
_PHOTOMETRIC = (1, 2, 3)  # TIFF: 0 is black, RGB, palette
_UNREADABLE = (
    *(UnidentifiedImageError, Image.DecompressionBombError, zlib.error),
    *(ValueError, OSError, SyntaxError, EOFError, KeyError, TypeError, IndexError, OverflowError),  # Pillow's own
)


def read_image2d(path: Path) -> NDArray[np.float32]:
    """Read a PNG or TIFF: (rows, columns), or (rows, columns, 3) where it is RGB; values as they are stored.

    Greyscale of 1 bit (as 0 and 1), 8 and 16 bits (TIFF: signed, too) and float (TIFF), RGB of 8 bits.

    Raises:
        FileNotFoundError, IsADirectoryError: no such file, or a folder.
        ValueError: not PNG or TIFF, truncated or damaged (checksums of PNG and of TIFF with deflate are verified;
            other TIFF has none); several pages or frames; more than `MAX_PIXELS` by the header; any other kind of
            picture; NaN or infinity.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     Image.fromarray(np.array([[0, 9, 255]], np.uint8)).save(Path(folder) / "xray.png")
    ...     read_image2d(Path(folder) / "xray.png").tolist()
    [[0.0, 9.0, 255.0]]
    """
    return _read(path, _IMAGES, _IMAGES_ALLOWED)


def read_label_image2d(path: Path) -> NDArray[np.float32]:
    """Read a label map (rows, columns) from PNG or TIFF: greyscale values, or palette *indices*, never colours.

    Raises what `read_image2d` raises, and ValueError for a picture in colours.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_label_image2d(np.array([[0, 7], [300, 0]]), Path(folder) / "labels.png")
    ...     read_label_image2d(Path(folder) / "labels.png").tolist()
    [[0.0, 7.0], [300.0, 0.0]]
    """
    return _read(path, _LABELS, _LABELS_ALLOWED)


def write_label_image2d(values: NDArray[np.integer[Any]], path: Path) -> None:
    """Write label ids or grey values (rows, columns) as a PNG, whole or not at all: 8 bits, or 16 beyond 255.

    Raises:
        ValueError: values that are not integers from 0 to 65535 in rows and columns, or another file name.
        OSError: the file cannot be written; what was there before is untouched.
    """
    if path.suffix.lower() != ".png":
        raise ValueError(f"{path}: cannot name a picture to write; .png is allowed, rename it")
    if values.ndim != 2 or values.dtype.kind not in "iu" or not values.size:
        got = f"got values of shape {values.shape} and type {values.dtype}"
        raise ValueError(f"{path}: {got}; integers in rows and columns are allowed, convert them first")
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > MAX_VALUE:
        raise ValueError(f"{path}: got values from {low} to {high}; 0 to {MAX_VALUE} fit a PNG, renumber them")
    picture = Image.fromarray(values.astype(np.uint8 if high <= 255 else np.uint16))
    with atomic_file(path) as stream:
        picture.save(stream, format="PNG")


def _read(path: Path, allowed: Mapping[str, tuple[int, ...]], remedy: str) -> NDArray[np.float32]:
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder; one picture is meant, name a file in it")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; name an existing PNG or TIFF")
    with refuse_damaged_jpeg(path):
        values, refusal = _load(path, allowed, remedy)
    if refusal:
        raise ValueError(f"{path}: {refusal}")
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite and is refused
        pixels = values.astype(np.float32)
    require_finite(pixels, path)
    return pixels


def _load(path: Path, allowed: Mapping[str, tuple[int, ...]], remedy: str) -> tuple[NDArray[Any], str]:
    """The values, and what is wrong with the picture: then there are none."""
    try:
        # ignored are warnings of metadata, and of sizes that are refused here
        with warnings.catch_warnings(action="ignore"), _whole_files_alone():
            with _opened(path) as picture:
                picture.verify()  # PNG's checksums; spends the stream
            with _opened(path) as picture:
                if refusal := _refusal(picture, allowed, remedy):
                    return np.empty(0), refusal
                if isinstance(picture, TiffImageFile) and picture.info.get("compression") in _DEFLATE:
                    _require_checksums(picture, path)
                return np.asarray(picture), ""
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: cannot be read as PNG or TIFF ({reason}); a whole file is needed") from error


def _require_checksums(picture: TiffImageFile, path: Path) -> None:
    """Verify the checksum of each strip or tile, which libtiff does not look at."""
    tags, content = picture.tag_v2, path.read_bytes()
    first, length = (Tag.TileOffsets, Tag.TileByteCounts) if Tag.TileOffsets in tags else _STRIPS
    for start, size in zip(tags[first], tags[length], strict=True):
        inflater = zlib.decompressobj()
        for at in range(start, start + size, _CHUNK):
            inflater.decompress(content[at : min(at + _CHUNK, start + size)])
        if not inflater.eof:
            raise ValueError("a deflate stream ends too early")


@contextmanager
def _whole_files_alone() -> Iterator[None]:
    """Other packages let Pillow fill up what a cut file lacks, for the whole process."""
    before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def _opened(path: Path) -> ImageFile.ImageFile:
    return Image.open(path, formats=("PNG", "TIFF"))


def _refusal(picture: ImageFile.ImageFile, allowed: Mapping[str, tuple[int, ...]], remedy: str) -> str:
    """What is wrong with an opened picture, by its header alone; empty where nothing is."""
    if picture.width * picture.height > MAX_PIXELS:
        return f"the header claims {picture.width} x {picture.height} pixels; {MAX_PIXELS} are allowed, cut it first"
    frames = getattr(picture, "n_frames", 1)
    if frames > 1:
        return f"holds {frames} pages or frames; one picture is allowed, split it first"
    bits, oddity = _tiff_samples(picture) if isinstance(picture, TiffImageFile) else _png_samples(picture)
    if oddity or bits not in allowed.get(picture.mode, ()):
        return f"got {_NAMES.get(picture.mode, picture.mode)} of {bits} bits a sample{oddity}; {remedy}"
    orientation = picture.getexif().get(Tag.Orientation, _UPRIGHT)
    if orientation != _UPRIGHT:
        return f"asks to be turned (orientation tag {orientation}); save it upright, and its label map alike"
    return ""


def _tiff_samples(picture: TiffImageFile) -> tuple[int, str]:
    """Bits a sample, and what would be lost or inverted; empty where nothing is."""
    tags = picture.tag_v2
    bits = max(tags.get(Tag.BitsPerSample, (1,)))
    if lacking := _lacking_pixels(picture):
        return bits, f", {lacking} pixels of which are not in the file"
    if (packed := picture.info.get("compression", "raw")) not in _COMPRESSIONS:
        return bits, f", compressed as {packed}, of whose damage libtiff prints a line alone"
    if tags.get(Tag.ExtraSamples):
        return bits, " with extra samples"
    if tags.get(Tag.PhotometricInterpretation) not in _PHOTOMETRIC:
        return bits, f" with photometric tag {tags.get(Tag.PhotometricInterpretation)}"
    signed = max(tags.get(Tag.SampleFormat, (1,))) == _SIGNED
    return bits, ", signed" if signed and bits == 8 else ""


def _lacking_pixels(picture: TiffImageFile) -> int:
    """How many pixels no strip or tile of the file holds: Pillow would leave them black."""
    planes = picture.tag_v2.get(Tag.SamplesPerPixel, 1) if picture.tag_v2.get(Tag.PlanarConfiguration) == _PLANES else 1
    extents = [tile.extents or (0, 0, 0, 0) for tile in picture.tile]
    held = sum((right - left) * (bottom - top) for left, top, right, bottom in extents)
    return max(0, picture.width * picture.height * planes - held)


def _png_samples(picture: ImageFile.ImageFile) -> tuple[int, str]:
    """Bits a sample, and what would be lost; empty where nothing is."""
    stored = re.search(r"\d+", str(picture.tile[0].args))  # 1, L, L;2, I;16B, P;4, ...: none is 8
    transparent = "transparency" in picture.info and picture.mode != "P"
    return int(stored[0]) if stored else 8, " with a transparent colour" if transparent else ""
