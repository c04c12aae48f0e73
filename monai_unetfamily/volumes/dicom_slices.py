"""One DICOM image file: what its header says, and its voxels in the modality's units.

SimpleITK reads it through GDCM, which applies the slice's own rescale slope and intercept. What GDCM passes over
in silence is checked here first: pixel data shorter than the header claims, a slope that is no number.
"""

import re
import struct
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from monai_unetfamily.volumes.decoder_messages import refuse_damaged_jpeg
from monai_unetfamily.volumes.dicom_folders import has_mark

TAGS = {
    "ImageType": "0008|0008",
    "SOPClassUID": "0008|0016",
    "Modality": "0008|0060",
    "SeriesDescription": "0008|103e",
    "EchoTime": "0018|0081",
    "TriggerTime": "0018|1060",
    "DiffusionBValue": "0018|9087",
    "StudyInstanceUID": "0020|000d",
    "SeriesInstanceUID": "0020|000e",
    "SeriesNumber": "0020|0011",
    "AcquisitionNumber": "0020|0012",
    "ImagePositionPatient": "0020|0032",
    "ImageOrientationPatient": "0020|0037",
    "TemporalPositionIdentifier": "0020|0100",
    "SamplesPerPixel": "0028|0002",
    "PhotometricInterpretation": "0028|0004",
    "NumberOfFrames": "0028|0008",
    "PixelSpacing": "0028|0030",
    "BitsAllocated": "0028|0100",
    "RescaleIntercept": "0028|1052",
    "RescaleSlope": "0028|1053",
}
_PREAMBLE = 132  # bytes: 128 of anything, then "DICM"
_META = 4096  # bytes, more than the file meta information takes
_SOP_CLASS, _TRANSFER_SYNTAX = 0x0002, 0x0010  # elements of group 2, the file meta information
_LONG_FORM = (b"OB", b"OW", b"SQ", b"UN", b"UT")  # value representations whose length takes four bytes
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_SECONDARY_CAPTURE = f"{_STORAGE}7"
_VOLUME_CLASSES = ("2", "4", "20", "128", "130")  # CT, MR, NM, PET, enhanced PET: each with its enhanced kin
# transfer syntaxes that store pixels as they are, "" of a file without meta information; where the tag ends
_PLAIN = {
    **dict.fromkeys(("", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"), b"\xe0\x7f\x10\x00"),
    "1.2.840.10008.1.2.2": b"\x7f\xe0\x00\x10",
}
_JPEG = tuple(f"1.2.840.10008.1.2.4.{number}" for number in ("5", "6", "70"))  # how those begin that libjpeg decodes
_UNIT = 1e-3  # most that a direction's length, and two directions' cosine, may be off 1 and 0


@dataclass(frozen=True)
class Slice:
    """One DICOM image: its file and what the header says of it, by the keywords of `TAGS`."""

    path: Path
    tags: Mapping[str, str]
    size: tuple[int, int]  # columns, rows

    def numbers(self, keyword: str, count: int = 1) -> tuple[float, ...] | None:
        """The values of a tag; None where it is absent, or not `count` finite numbers.

        >>> Slice(Path("IM1"), {"PixelSpacing": "0.8\\\\0.7"}, (4, 3)).numbers("PixelSpacing", 2)
        (0.8, 0.7)
        """
        try:
            values = tuple(map(float, self.tags.get(keyword, "").split("\\")))
        except ValueError:
            return None
        return values if len(values) == count and np.isfinite(values).all() else None

    @property
    def position(self) -> NDArray[np.float64]:
        """Of the centre of the first voxel (3,), mm, LPS+."""
        return np.array(self.numbers("ImagePositionPatient", 3))

    @property
    def axes(self) -> NDArray[np.float64]:
        """Unit vectors (3, 3), LPS+, in rows: along which columns count, along which rows count, the normal."""
        cosines = np.array(self.numbers("ImageOrientationPatient", 6)).reshape(2, 3)
        along = cosines / np.linalg.norm(cosines, axis=1, keepdims=True)
        normal = np.cross(*along)
        return np.stack([*along, normal / np.linalg.norm(normal)])

    @property
    def spacing(self) -> NDArray[np.float64]:
        """From column to column and from row to row (2,), mm: DICOM names them the other way round."""
        return np.array(self.numbers("PixelSpacing", 2))[::-1]


def open_slice(path: Path) -> Slice:
    """Read the header of a DICOM image; no voxel is read.

    Raises:
        ValueError: what GDCM cannot read: another format, a report, a file that is cut off.

    >>> open_slice(Path("absent.dcm"))
    Traceback (most recent call last):
    ValueError: absent.dcm: cannot be read as a DICOM image; whole image files are read, copy it again
    """
    reader = _reader(path)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        got = "cannot be read as a DICOM image"
        raise ValueError(f"{path}: {got}; whole image files are read, copy it again") from error
    held = set(reader.GetMetaDataKeys())
    tags = {keyword: _clean(reader.GetMetaData(tag)) for keyword, tag in TAGS.items() if tag in held}
    return Slice(path, tags, reader.GetSize()[:2])


def sort_slices(images: Sequence[Slice]) -> tuple[list[Slice], NDArray[np.float64]]:
    """Sort parallel slices by position along the normal of the first one.

    Returns them and their offsets (slices, 3) from the lowest one, mm: along columns, rows and the normal.

    >>> tags = {"PixelSpacing": "1\\\\1", "ImageOrientationPatient": "1\\\\0\\\\0\\\\0\\\\1\\\\0"}
    >>> heights = {"IM1": 5, "IM2": 2.5}
    >>> images = [
    ...     Slice(Path(name), {**tags, "ImagePositionPatient": f"0\\\\0\\\\{height}"}, (4, 3))
    ...     for name, height in heights.items()
    ... ]
    >>> ordered, offsets = sort_slices(images)
    >>> [image.path.name for image in ordered], offsets.tolist()
    (['IM2', 'IM1'], [[0.0, 0.0, 0.0], [0.0, 0.0, 2.5]])
    """
    places = np.stack([image.position for image in images]) @ images[0].axes.T
    order = np.argsort(places[:, 2], kind="stable")
    return [images[k] for k in order], places[order] - places[order[0]]


def why_no_slice(image: Slice) -> str:
    """Why an image is another thing than a slice of a volume, or nothing.

    >>> why_no_slice(Slice(Path("IM1"), {"ImageType": "ORIGINAL\\\\PRIMARY\\\\LOCALIZER"}, (512, 512)))
    'localizer'
    """
    tags = image.tags
    if "LOCALIZER" in tags.get("ImageType", "").upper().split("\\"):
        return "localizer"
    if f"{tags.get('SOPClassUID', '')}.".startswith(f"{_SECONDARY_CAPTURE}."):
        return "secondary capture"
    if tags.get("NumberOfFrames", "1") != "1":
        return f"{tags['NumberOfFrames']} frames in one file, which are not read"
    if tags.get("SamplesPerPixel", "1") != "1" or tags.get("PhotometricInterpretation") != "MONOCHROME2":
        return f"colour or inverted greys ({tags.get('PhotometricInterpretation', 'unknown')})"
    return ""


def why_unusable(image: Slice) -> str:
    """Why a slice cannot be put into a volume, or nothing: its place or its units are not told.

    >>> why_unusable(Slice(Path("IM1"), {"RescaleSlope": "1"}, (512, 512)))
    'no position, orientation or pixel spacing'
    """
    return _why_no_place(image) or _why_no_units(image)


def is_damaged_slice(path: Path) -> bool:
    """Whether a file that `open_slice` refuses may be an image of a volume: it is cut off, or in disorder.

    It calls itself one, or is marked as DICOM and does not say what it is, which reports and indices do.

    >>> is_damaged_slice(Path(__file__))
    False
    """
    sop_class = _meta(path).get(_SOP_CLASS, "")
    if not _UID.fullmatch(sop_class):
        return has_mark(path)
    return sop_class.startswith(_STORAGE) and sop_class.removeprefix(_STORAGE).split(".")[0] in _VOLUME_CLASSES


def read_slice(image: Slice) -> NDArray[np.float32]:
    """Read the voxels (columns, rows), rescaled: HU of CT, the modality's units of others.

    Raises:
        ValueError: pixel data that are cut off or damaged.
    """
    _require_pixels(image)
    reader = _reader(image.path)
    reader.SetOutputPixelType(sitk.sitkFloat32)
    jpeg = _meta(image.path).get(_TRANSFER_SYNTAX, "").startswith(_JPEG)
    try:
        with refuse_damaged_jpeg(image.path) if jpeg else nullcontext():
            voxels: NDArray[np.float32] = sitk.GetArrayFromImage(reader.Execute())
    except RuntimeError as error:
        raise ValueError(f"{image.path}: its pixel data cannot be read; whole files are read, copy it again") from error
    return voxels[0].T


def _why_no_place(image: Slice) -> str:
    spacing, cosines = image.numbers("PixelSpacing", 2), image.numbers("ImageOrientationPatient", 6)
    if spacing is None or cosines is None or image.numbers("ImagePositionPatient", 3) is None:
        return "no position, orientation or pixel spacing"
    along = np.reshape(cosines, (2, 3))
    if np.abs(along @ along.T - np.eye(2)).max() > _UNIT:
        return f"rows and columns that are no unit vectors at right angles ({image.tags['ImageOrientationPatient']})"
    return "" if min(spacing) > 0 else f"a pixel spacing of {image.tags['PixelSpacing']}"


def _why_no_units(image: Slice) -> str:
    """GDCM takes a slope or intercept that it cannot read for none, and a slope of 0 for 1."""
    for keyword in ("RescaleSlope", "RescaleIntercept"):
        text = image.tags.get(keyword, "")
        if text and image.numbers(keyword) is None:
            return f"a {keyword} of {text}"
    return "a RescaleSlope of 0" if image.numbers("RescaleSlope") == (0.0,) else ""


def _require_pixels(image: Slice) -> None:
    """Refuse plain pixel data that are shorter than rows x columns: GDCM fills the rest with anything."""
    tag = _PLAIN.get(_meta(image.path).get(_TRANSFER_SYNTAX, ""))
    if tag is None:  # compressed: the decoder counts
        return
    columns, rows = image.size
    claimed = columns * rows * int(image.tags["BitsAllocated"]) // 8
    with image.path.open("rb") as stream:
        head = stream.read(max(image.path.stat().st_size - claimed, 0))
    if tag not in head:
        got = f"holds fewer than the {claimed} bytes of pixel data that {rows} rows of {columns} take"
        raise ValueError(f"{image.path}: {got}; whole files are read, copy it again")


def _meta(path: Path) -> dict[int, str]:
    """Text of the file meta information by element of group 2; always explicit, little endian (PS3.10, 7.1)."""
    with path.open("rb") as stream:
        head = stream.read(_PREAMBLE + _META)
    found: dict[int, str] = {}
    at = _PREAMBLE if head[128:_PREAMBLE] == b"DICM" else len(head)
    while head[at : at + 2] == b"\x02\x00" and at + 12 <= len(head):
        element, kind, short = struct.unpack_from("<H2sH", head, at + 2)
        length, start = (struct.unpack_from("<I", head, at + 8)[0], at + 12) if kind in _LONG_FORM else (short, at + 8)
        at = start + length
        if at <= len(head):  # a value that is cut off says nothing
            found[element] = _clean(head[start:at].decode("latin-1"))
    return found


def _reader(path: Path) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    return reader


def _clean(text: str) -> str:
    """Text without its padding; bytes that are no UTF-8 (of other character sets) become marks of themselves."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace").strip("\0 ")
