"""Volumes in ITK's own formats: MetaImage (.mha, .mhd) and NRRD (.nrrd, .nhdr).

SimpleITK reads them. What it lets pass is checked here first: a header that claims more than its file holds, a
compressed MetaImage that is damaged (MetaIO then hands out whatever its memory holds), numbers that are none.
"""

import io
import math
import re
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import SimpleITK as sitk
from nibabel.nifti1 import Nifti1Image
from numpy.typing import NDArray

from monai_unetfamily.volumes.grids import Volume, patient_grid, require_right_angles
from monai_unetfamily.volumes.headers import MAX_VOXELS

SUFFIXES = (".mha", ".mhd", ".nrrd", ".nhdr")

_DEFLATE_RATIO = 1032  # most bytes that one byte of a deflate stream can stand for (zlib technical details)
_CHUNK = 1 << 16  # bytes: what they unpack to fits in memory at any ratio
_LONGEST_HEADER = 1 << 20  # bytes: that of a segmentation of hundreds of segments is a tenth
_METAIMAGE = (".mha", ".mhd")
_PLACES = {"elementspacing", "elementsize", "offset", "position", "origin"}
_SPACINGS = ("elementspacing", "elementsize", "space directions", "spacings")
_SKIPS = {"line skip", "lineskip", "byte skip", "byteskip"}  # ahead of a NRRD's voxels
_TURNS = {"transformmatrix", "orientation", "rotation"}
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class _Header:
    """What the text at a file's head says: its fields, and where the voxels lie."""

    fields: dict[str, str]  # names in lower case
    file: Path  # that holds the voxels
    offset: int  # of the first of them, in bytes
    packed: bool  # whether they are compressed, or written as text
    oriented: bool  # whether the file says where the patient's left is


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
    reader, affine, notes = open_itk(path, max_voxels)
    reader.SetOutputPixelType(sitk.sitkFloat32)
    voxels = sitk.GetArrayFromImage(_run(reader.Execute, path)).T
    return voxels, patient_grid(voxels.shape, affine), notes


def read_itk_stored(path: Path, max_voxels: int = MAX_VOXELS) -> tuple[NDArray[Any], Nifti1Image, tuple[str, ...]]:
    """Read the same in the type it is stored in, and pictures (X, Y) and series (X, Y, Z, T), too.

    Raises what `read_itk` raises.
    """
    reader, affine, notes = open_itk(path, max_voxels, axes=(2, 3, 4))
    voxels = sitk.GetArrayFromImage(_run(reader.Execute, path)).T
    return voxels, patient_grid(voxels.shape, affine), notes


def open_itk(
    path: Path, max_voxels: int = MAX_VOXELS, axes: Collection[int] = (3,)
) -> tuple[sitk.ImageFileReader, NDArray[np.float64], tuple[str, ...]]:
    """Open a file, no voxel read: its reader, the affine (4, 4) to mm, LPS+, and notes of what the file does not tell.

    `axes` are the numbers of axes that it may have.

    Raises what `read_itk` raises before voxels are read.

    >>> open_itk(Path("absent.mha"))
    Traceback (most recent call last):
    FileNotFoundError: absent.mha: no such file; name an existing MetaImage or NRRD file
    """
    _require_name(path)
    header = _metaimage(path) if path.suffix.lower() in _METAIMAGE else _nrrd(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    _run(reader.ReadImageInformation, path)
    _require_volume(reader, path, max_voxels, axes)
    _require_bytes(reader, header, path)
    affine = _affine(reader)
    require_right_angles(affine, str(path))
    return reader, affine, _notes(header)


def _require_name(path: Path) -> None:
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: is not named as MetaImage or NRRD; {', '.join(SUFFIXES)} are read, convert it first")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; name an existing MetaImage or NRRD file")


def _metaimage(path: Path) -> _Header:
    """`Key = value` lines; the last one, ElementDataFile, names the file of voxels, or LOCAL: they follow."""
    fields: dict[str, str] = {}
    offset = 0
    for line in _lines(path):
        offset += len(line)
        key, _, value = line.decode("latin-1").partition("=")
        fields[key.strip().lower()] = value.strip()
        if "elementdatafile" in fields:
            break
    places = " ".join(value for key, value in fields.items() if key in _PLACES | _TURNS)
    if not {"dimsize", "elementdatafile"} <= fields.keys() or not all(map(_is_finite, places.split())):
        raise ValueError(f"{path}: is no MetaImage, or damaged; sizes and finite numbers are needed, export it again")
    packed = _says(fields, "compresseddata", "true") or _says(fields, "binarydata", "false")
    local = fields["elementdatafile"].upper() == "LOCAL"
    file = path if local else _companion(path, fields["elementdatafile"])
    return _Header(fields, file, offset if local else 0, packed, bool(_TURNS & fields.keys()))


def _nrrd(path: Path) -> _Header:
    """`key: value` lines up to an empty one; voxels follow, or lie in the file that `data file` names."""
    fields: dict[str, str] = {}
    offset = 0
    for line in _lines(path):
        offset += len(line)
        key, colon, value = line.decode("latin-1").strip().partition(":")
        if not key and not colon:
            break
        fields[key.lower()] = value.strip()
    units = set(fields.get("space units", "").replace('"', " ").split()) - {"mm", "???"}
    if units:
        raise ValueError(f"{path}: got lengths in {', '.join(sorted(units))}; mm are allowed, convert it first")
    data = fields.get("data file", fields.get("datafile"))
    file = path if data is None else _companion(path, data)
    oriented = any(fields.get("space", "").lower().startswith(way) for way in ("left", "right", "lps", "ras", "las"))
    return _Header(fields, file, offset if data is None else 0, fields.get("encoding") != "raw", oriented)


def _lines(path: Path) -> list[bytes]:
    with path.open("rb") as stream:
        return io.BytesIO(stream.read(_LONGEST_HEADER)).readlines()


def _says(fields: dict[str, str], name: str, value: str) -> bool:
    return fields.get(name, "").lower() == value


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


def _notes(header: _Header) -> tuple[str, ...]:
    """One line for each thing that ITK makes up because the header does not tell it."""
    sides = "the file does not tell left from right; its axes are taken as they come, as ITK does: left, back, up"
    sizes = "the file does not tell how large its voxels are; 1 mm is taken along such an axis, as ITK does"
    return (() if header.oriented else (sides,)) + (() if _has_spacing(header.fields) else (sizes,))


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
    """Refuse a header that claims more than its file can hold, and compressed voxels that do not unpack to as much."""
    claimed = math.prod(reader.GetSize()) * sitk.Image([1, 1, 1], reader.GetPixelID()).GetSizeOfPixelComponent()
    held = header.file.stat().st_size - header.offset
    can_hold = held * (_DEFLATE_RATIO if header.packed else 1)
    if claimed > can_hold or (_is_deflated(header) and _inflated_bytes(header, claimed) != claimed):
        got = f"the header claims {claimed} bytes for shape {reader.GetSize()}"
        raise ValueError(f"{path}: {got}; {header.file.name} does not hold them, copy the file or mend its header")


def _is_deflated(header: _Header) -> bool:
    """Whether the voxels are one stream of zlib or gzip, whose checksum ITK does not look at in a NRRD."""
    gzip = header.fields.get("encoding", "").lower() in ("gzip", "gz") and not _SKIPS & header.fields.keys()
    return gzip or _says(header.fields, "compresseddata", "true")


def _inflated_bytes(header: _Header, most: int) -> int:
    """How many bytes the voxels unpack to, looked at no further than `most`; 0 of a stream that is damaged."""
    inflater = zlib.decompressobj(wbits=47)  # a header of zlib's or of gzip's
    count = 0
    with header.file.open("rb") as stream:
        stream.seek(header.offset)
        while not inflater.eof and count <= most and (packed := stream.read(_CHUNK)):
            try:
                count += len(inflater.decompress(packed))
            except zlib.error:
                return 0
    return count if inflater.eof else 0


def _affine(reader: sitk.ImageFileReader) -> NDArray[np.float64]:
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
    except RuntimeError as error:  # ITK's, over several lines; the last one tells the reason
        reason = str(error).strip().splitlines()[-1].strip()
        raise ValueError(
            f"{path}: cannot be read ({reason}); a whole file is needed, copy or export it again"
        ) from error
