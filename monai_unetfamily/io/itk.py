"""Read MetaImage (.mha, .mhd) and NRRD (.nrrd, .nhdr)."""

import io
import math
import re
import zlib
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import SimpleITK as sitk
from nibabel.nifti1 import Nifti1Header, Nifti1Image
from numpy.typing import NDArray

from monai_unetfamily.io.formats import ITK, is_itk
from monai_unetfamily.io.header_checks import MAX_VOXELS

# The grids of ITK and DICOM, which count millimetres to the left, back and top (LPS+), as NIfTI grids (RAS+).


Volume = tuple[NDArray[np.float32], Nifti1Image, tuple[str, ...]]  # voxels (X, Y, Z), grid, notes
MAX_SHEAR = 1e-3  # cosine between two axes; ITK's NIfTI reader refuses more

_LONGEST_AXIS = 2**15 - 1  # of a NIfTI-1 header


def patient_grid(shape: tuple[int, ...], affine: NDArray[np.float64]) -> Nifti1Image:
    """Return the NIfTI grid of an ITK or DICOM one: an image without voxels (it reads as zeros) for its header.

    Its header has sform and qform, both of code 1, and millimetres; its affine is the sform as the header
    holds it, so that what is written on the grid has the affine to the last bit.

    Args:
        shape: (X, Y, Z).
        affine: (4, 4) to mm in ITK's and DICOM's directions LPS+ (left, posterior, superior), at right angles.

    Raises:
        ValueError: an axis that a NIfTI header cannot count.

    >>> grid = patient_grid((512, 512, 90), np.diag([0.75, 0.75, 2.5, 1.0]))
    >>> grid.shape, grid.affine.diagonal().tolist(), int(grid.header["qform_code"])
    ((512, 512, 90), [-0.75, -0.75, 2.5, 1.0], 1)
    """
    if max(shape) > _LONGEST_AXIS:
        raise ValueError(f"got a grid of {shape} voxels; NIfTI counts to {_LONGEST_AXIS} along an axis, crop it first")
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    header = Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape(shape)
    header.set_xyzt_units("mm")
    header.set_qform(affine, code=1)
    header.set_sform(affine, code=1)
    return Nifti1Image(np.broadcast_to(np.int16(0), shape), header.get_sform(), header)


def require_right_angles(affine: NDArray[np.float64], name: str) -> None:
    """Refuse an affine (4, 4) that is not finite, or whose axes are not at right angles to within `MAX_SHEAR`.

    >>> require_right_angles(np.array([[1, 0, 0.5, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "ct.mha")
    Traceback (most recent call last):
    ValueError: ct.mha: got axes at angles of 90, 90 and 63.4 degrees; right angles are allowed, resample it first
    """
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not (np.isfinite(affine).all() and lengths.all()):
        raise ValueError(f"{name}: got the affine {affine[:3].tolist()}; finite axes are needed, mend the header")
    axes = affine[:3, :3] / lengths
    cosines = np.array([axes[:, 0] @ axes[:, 1], axes[:, 1] @ axes[:, 2], axes[:, 0] @ axes[:, 2]])
    if np.abs(cosines).max() > MAX_SHEAR:
        first, second, third = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
        got = f"got axes at angles of {first:.3g}, {second:.3g} and {third:.3g} degrees"
        raise ValueError(f"{name}: {got}; right angles are allowed, resample it first")


# Volumes in ITK's own formats: MetaImage (.mha, .mhd) and NRRD (.nrrd, .nhdr).
#
# SimpleITK reads the headers, and the voxels of a NRRD that is text, hexadecimal or begins with lines or bytes to
# skip. All other voxels are read here: MetaIO reports a damaged compressed stream, or one whose CompressedDataSize is
# missing or wrong, with a printed line alone, and returns whatever its memory holds. A header that claims more than
# its file can hold is refused before a voxel is read.

_DEFLATE_RATIO = 1032  # most bytes that one byte of a deflate stream can stand for (zlib technical details)
_CHUNK = 1 << 16  # bytes: what they unpack to fits in memory at any ratio
_LONGEST_NUMBER = 64  # bytes of text, with the space that follows
_LONGEST_HEADER = 1 << 20  # bytes: that of a segmentation of hundreds of segments is a tenth
_METAIMAGE = (".mha", ".mhd")
_MOST_AXES = 10  # of a MetaImage: beyond them MetaIO ends the process
_NEEDED = {"dimsize", "elementtype", "elementdatafile"}  # without them MetaIO prints several lines
_PLACES = {"elementspacing", "elementsize", "offset", "position", "origin"}
_SPACINGS = ("elementspacing", "elementsize", "space directions", "spacings")
_SKIPS = {"line skip", "lineskip", "byte skip", "byteskip"}  # ahead of a NRRD's voxels
_TURNS = {"transformmatrix", "orientation", "rotation"}
_Encoding = Literal["raw", "deflate", "text", "ITK's"]  # of voxels; the last is left to ITK
_Affine = NDArray[np.float64]  # (4, 4) to mm, LPS+
_NRRD: dict[str, _Encoding] = {
    **{"raw": "raw", "gzip": "deflate", "gz": "deflate"},
    **dict.fromkeys(("text", "txt", "ascii"), "text"),  # of which nrrdio cuts off what a type cannot hold
}
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class _Header:
    """What the text at a file's head says: where the voxels lie, and how they are stored."""

    file: Path  # that holds the voxels
    offset: int  # of the first of them, in bytes; -1: they end with the file
    encoding: _Encoding
    big_endian: bool
    notes: tuple[str, ...]  # what ITK makes up because the file does not tell it


def read_itk(path: Path, max_voxels: int = MAX_VOXELS) -> Volume:
    """Read one scalar 3-D volume: voxels (X, Y, Z) in the file's units, the grid as `patient_grid`, notes.

    Raises:
        FileNotFoundError: no such file, or its file of voxels is missing.
        ValueError: named otherwise; damaged, cut off, or spread over several files; not one 3-D volume of real
            numbers; more than `max_voxels` voxels; axes that are not at right angles.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "ct.nrrd"
    ...     image = sitk.GetImageFromArray(np.zeros((4, 3, 2), np.int16))
    ...     image.SetSpacing((1.0, 1.0, 2.5))
    ...     sitk.WriteImage(image, str(path))
    ...     voxels, grid, notes = read_itk(path)
    >>> voxels.shape, grid.affine.diagonal().tolist(), notes
    ((2, 3, 4), [-1.0, -1.0, 2.5, 1.0], ())
    """
    reader, header, affine = _open(path, max_voxels, axes=(3,))
    reader.SetOutputPixelType(sitk.sitkFloat32)
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite, as ITK has it, and is refused later
        voxels = _read_voxels(reader, header, path).astype(np.float32, copy=False)
    return voxels, patient_grid(voxels.shape, affine), header.notes


def read_itk_stored(path: Path, max_voxels: int = MAX_VOXELS) -> tuple[NDArray[Any], Nifti1Image, tuple[str, ...]]:
    """Read the same in the type it is stored in, and pictures (X, Y) and series (X, Y, Z, T), too.

    Raises what `read_itk` raises.
    """
    reader, header, affine = _open(path, max_voxels, axes=(2, 3, 4))
    voxels = _read_voxels(reader, header, path)
    return voxels, patient_grid(voxels.shape, affine), header.notes


def open_itk(path: Path, max_voxels: int = MAX_VOXELS) -> tuple[sitk.ImageFileReader, _Affine]:
    """Open a file of one 3-D volume, no voxel read: its reader and the affine (4, 4) to mm, LPS+.

    Raises what `read_itk` raises before voxels are read.

    >>> open_itk(Path("absent.mha"))
    Traceback (most recent call last):
    FileNotFoundError: absent.mha: no such file; name an existing MetaImage or NRRD file
    """
    reader, _, affine = _open(path, max_voxels, axes=(3,))
    return reader, affine


def _open(path: Path, max_voxels: int, axes: Collection[int]) -> tuple[sitk.ImageFileReader, _Header, _Affine]:
    """`axes` are the numbers of axes that the file may have."""
    _require_name(path)
    header = _metaimage(path) if path.suffix.lower() in _METAIMAGE else _nrrd(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    _run(reader.ReadImageInformation, path)
    _require_volume(reader, path, max_voxels, axes)
    _require_bytes(reader, header, path)
    affine = _affine(reader)
    require_right_angles(affine, str(path))
    return reader, header, affine


def _require_name(path: Path) -> None:
    if not is_itk(path):
        raise ValueError(f"{path}: is not named as MetaImage or NRRD; {', '.join(ITK)} are read, convert it first")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; name an existing MetaImage or NRRD file")


def _metaimage(path: Path) -> _Header:
    """`Key = value` lines; the last one, ElementDataFile, names the file of voxels, or LOCAL: they follow."""
    fields: dict[str, str] = {}
    offset = 0
    for line in _lines(path):
        offset += len(line)
        key, *value = re.split("[=:]", line.decode("latin-1"), maxsplit=1)
        fields[key.strip().lower()] = "".join(value).strip()
        if "elementdatafile" in fields:
            break
    places = " ".join(fields[key] for key in fields.keys() & (_PLACES | _TURNS))
    if not fields.keys() >= _NEEDED or not all(map(_is_finite, places.split())):
        raise ValueError(f"{path}: is no MetaImage, or damaged; sizes and finite numbers are needed, export it again")
    axes, skip, _ = (_whole_number(fields, key, path) for key in ("NDims", "HeaderSize", "CompressedDataSize"))
    if not 1 <= axes <= _MOST_AXES or len(fields["dimsize"].split()) != axes:
        got = f"NDims is {axes} and DimSize {fields['dimsize']!r}"
        raise ValueError(f"{path}: {got}; a size for each of 1 to {_MOST_AXES} axes is allowed, mend the header")
    data = fields["elementdatafile"]
    local = data.upper() == "LOCAL"
    orders = {_is_true(fields, key) for key in ("binarydatabyteordermsb", "elementbyteordermsb") if key in fields}
    if len(orders) > 1:
        got = "BinaryDataByteOrderMSB and ElementByteOrderMSB differ"
        raise ValueError(f"{path}: {got}; one byte order is allowed, mend the header")
    packed: _Encoding = "deflate" if _is_true(fields, "compresseddata") else "raw"
    encoding = "text" if "binarydata" in fields and not _is_true(fields, "binarydata") else packed
    start = -1 if skip == -1 else max(skip, offset * local)
    notes = _notes(fields, oriented=bool(_TURNS & fields.keys()))
    return _Header(path if local else _companion(path, data), start, encoding, True in orders, notes)


def _nrrd(path: Path) -> _Header:
    """`key: value` lines up to an empty one; voxels follow, or lie in the file that `data file` names."""
    fields: dict[str, str] = {}
    offset = 0
    for line in _lines(path):
        offset += len(line)
        key, colon, value = line.decode("latin-1").strip().partition(":")
        if not key and not colon:
            break
        if not value.startswith("="):  # key:=value is a note of the writer's
            fields[key.strip().lower()] = value.strip()
    units = set(fields.get("space units", "").replace('"', " ").split()) - {"mm", "???"}
    if units:
        raise ValueError(f"{path}: got lengths in {', '.join(sorted(units))}; mm are allowed, convert it first")
    data = fields.get("data file", fields.get("datafile"))
    file = path if data is None else _companion(path, data)
    oriented = any(fields.get("space", "").lower().startswith(way) for way in ("left", "right", "lps", "ras", "las"))
    # hexadecimal and what skips lines or bytes: nrrdio counts what it reads, and raises
    encoding = "ITK's" if _SKIPS & fields.keys() else _NRRD.get(fields.get("encoding", "").lower(), "ITK's")
    big_endian = fields.get("endian", "").lower() == "big"
    return _Header(file, offset if data is None else 0, encoding, big_endian, _notes(fields, oriented))


def _lines(path: Path) -> list[bytes]:
    with path.open("rb") as stream:
        return io.BytesIO(stream.read(_LONGEST_HEADER)).readlines()


def _is_true(fields: dict[str, str], key: str) -> bool:
    """As MetaIO reads it, by the first letter."""
    return fields.get(key, "")[:1] in ("T", "t", "1")


def _whole_number(fields: dict[str, str], key: str, path: Path) -> int:
    text = fields.get(key.lower(), "0")
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{path}: {key} is {text!r}; a whole number is allowed, mend the header") from None


def _companion(path: Path, name: str) -> Path:
    file = path.parent / name
    if name.upper().startswith("LIST") or "%" in name:
        raise ValueError(f"{path}: its voxels lie in several files ({name}); one is allowed, join them first")
    if not file.is_file():
        raise FileNotFoundError(f"{path}: its file of voxels, {name}, is missing; restore it")
    return file


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _notes(fields: dict[str, str], oriented: bool) -> tuple[str, ...]:
    """One line for each thing that ITK makes up because the header does not tell it."""
    sides = "the file does not tell left from right; its axes are taken as they come, as ITK does: left, back, up"
    sizes = "the file does not tell how large its voxels are; 1 mm is taken along such an axis, as ITK does"
    return (() if oriented else (sides,)) + (() if _has_spacing(fields) else (sizes,))


def _has_spacing(fields: dict[str, str]) -> bool:
    """Whether each spatial axis has a spacing; a fourth one, of time or channels, needs none."""
    told = next((fields[key] for key in _SPACINGS if key in fields), "")
    missing = re.findall(r"none|\(\s*nan[^)]*\)|nan", told.lower())
    return bool(told) and len(missing) <= max(0, int(fields.get("dimension", 3)) - 3)


def _require_volume(reader: sitk.ImageFileReader, path: Path, most: int, axes: Collection[int]) -> None:
    size, parts = reader.GetSize(), reader.GetNumberOfComponents()
    if len(size) not in axes or parts != 1:
        got = f"got shape {size} with {parts} value{'s' * (parts > 1)} a voxel"
        raise ValueError(f"{path}: {got}; one 3-D volume of real numbers is allowed, split it first")
    if (voxels := math.prod(size)) > most:
        raise ValueError(f"{path}: the header claims {voxels} voxels; {most} are allowed, crop it or raise the limit")


def _require_bytes(reader: sitk.ImageFileReader, header: _Header, path: Path) -> None:
    """Refuse a header that claims more than its file can hold, or of plain voxels less than it holds."""
    claimed = math.prod(reader.GetSize()) * _stored_type(reader, header).itemsize
    held = header.file.stat().st_size - max(header.offset, 0)
    if claimed > held * (1 if header.encoding == "raw" else _DEFLATE_RATIO):
        raise _other_length(claimed, reader, header, path)
    if header.encoding == "raw" and header.offset != -1 and claimed < held:
        got = f"the header claims {claimed} bytes for shape {reader.GetSize()}; {header.file.name} holds {held}"
        raise ValueError(f"{path}: {got}, mend the header's size, type or encoding")


def _other_length(claimed: int, reader: sitk.ImageFileReader, header: _Header, path: Path) -> ValueError:
    got = f"the header claims {claimed} bytes for shape {reader.GetSize()}"
    return ValueError(f"{path}: {got}; {header.file.name} does not hold them, copy the file or mend its header")


def _stored_type(reader: sitk.ImageFileReader, header: _Header) -> np.dtype[Any]:
    one = sitk.GetArrayViewFromImage(sitk.Image([1, 1, 1], reader.GetPixelID()))
    return one.dtype.newbyteorder(">" if header.big_endian else "<")


def _read_voxels(reader: sitk.ImageFileReader, header: _Header, path: Path) -> NDArray[Any]:
    """Read the voxels (X, Y, Z), in the byte order of this machine."""
    if header.encoding == "ITK's":
        return sitk.GetArrayFromImage(_run(reader.Execute, path)).T
    kind, shape = _stored_type(reader, header), reader.GetSize()
    flat = _FLAT[header.encoding](header, kind, math.prod(shape))
    if flat is None:
        raise _other_length(math.prod(shape) * kind.itemsize, reader, header, path)
    return flat.astype(kind.newbyteorder("="), copy=False).reshape(shape, order="F")


def _read_raw(header: _Header, kind: np.dtype[Any], count: int) -> NDArray[Any]:
    offset = header.file.stat().st_size - count * kind.itemsize if header.offset == -1 else header.offset
    return np.fromfile(header.file, kind, count, offset=offset)


def _read_deflated(header: _Header, kind: np.dtype[Any], count: int) -> NDArray[Any] | None:
    """One stream of zlib or gzip; None where it is damaged (by its checksum) or unpacks to another length."""
    inflater = zlib.decompressobj(wbits=47)  # a header of zlib's or of gzip's
    unpacked, size = bytearray(), count * kind.itemsize
    with header.file.open("rb") as stream, suppress(zlib.error):  # after which the stream is at no end
        stream.seek(max(header.offset, 0))
        while not inflater.eof and len(unpacked) <= size and (packed := stream.read(_CHUNK)):
            unpacked += inflater.decompress(packed)
    return np.frombuffer(unpacked, kind) if inflater.eof and len(unpacked) == size else None


def _read_text(header: _Header, kind: np.dtype[Any], count: int) -> NDArray[Any] | None:
    """Read numbers separated by white space; None if their count differs or one does not fit the type."""
    with header.file.open("rb") as stream, suppress(ValueError, OverflowError):
        stream.seek(max(header.offset, 0))
        words = stream.read(_LONGEST_NUMBER * count).decode("latin-1").split()
        return np.array(words, kind) if len(words) == count else None
    return None


_FLAT = {"raw": _read_raw, "deflate": _read_deflated, "text": _read_text}


def _affine(reader: sitk.ImageFileReader) -> _Affine:
    """Of the first three axes; a picture is one slice of 1 mm."""
    axes = len(reader.GetSize())
    directions, affine = np.reshape(reader.GetDirection(), (axes, axes)) * reader.GetSpacing(), np.eye(4)
    spatial = min(axes, 3)
    affine[:spatial, :spatial] = directions[:spatial, :spatial]
    affine[:spatial, 3] = reader.GetOrigin()[:spatial]
    return affine


def _run(step: Callable[[], _Result], path: Path) -> _Result:
    try:
        return step()
    except RuntimeError as error:  # ITK's, over several lines; "Reason:" is the last error of the system, not of ITK
        *_, reason = (line.strip() for line in str(error).splitlines() if not line.startswith("Reason:"))
        reason = re.sub(r"^(ITK |sitk::)ERROR: (\w+\(0x\w+\): )?", "", reason)
        allowed = "a whole file is needed, copy or export it again"
        raise ValueError(f"{path}: cannot be read ({reason}); {allowed}") from error
