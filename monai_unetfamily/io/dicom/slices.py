"""One DICOM image file: what its header says, and its voxels in the modality's units.

SimpleITK reads it through GDCM, which applies the slice's own rescale slope and intercept. What GDCM passes over
in silence is checked here first: pixel data shorter than the header claims, a slope that is no number.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from monai_unetfamily.io.dicom.files import TRANSFER_SYNTAX, has_mark, read_head, sop_class
from monai_unetfamily.io.image2d import refuse_damaged_jpeg

TAGS = {
    "ImageType": "0008|0008",
    "SOPClassUID": "0008|0016",
    "AcquisitionTime": "0008|0032",
    "ContentTime": "0008|0033",
    "Modality": "0008|0060",
    "SeriesDescription": "0008|103e",
    "ComplexImageComponent": "0008|9208",
    "KVP": "0018|0060",
    "EchoTime": "0018|0081",
    "InversionTime": "0018|0082",
    "EchoNumbers": "0018|0086",
    "TriggerTime": "0018|1060",
    "ConvolutionKernel": "0018|1210",
    "FlipAngle": "0018|1314",
    "DiffusionBValue": "0018|9087",
    "DiffusionGradientOrientation": "0018|9089",
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
    "RescaleType": "0028|1054",
    "Units": "0054|1001",
}
_STORAGE = "1.2.840.10008.5.1.4.1.1."
# what is stored as DICOM and is no scan, by the part of its class after `_STORAGE`
_NO_SCANS = {
    "7": "secondary capture",
    "11": "presentation state",
    "66.4": "segmentation, which is labels",
    "66.7": "segmentation, which is labels",
    "66": "registration, surface or raw data",
    "88": "report",
    "481.2": "RT dose",
    "481.3": "RT structure set",
    "481.5": "RT plan",
}
_VOLUME_CLASSES = ("2", "4", "20", "128", "130")  # CT, MR, NM, PET, enhanced PET: each with its enhanced kin
# transfer syntaxes that store pixels as they are, "" of a file without meta information; where the tag ends
_PLAIN = {
    **dict.fromkeys(("", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"), b"\xe0\x7f\x10\x00"),
    "1.2.840.10008.1.2.2": b"\x7f\xe0\x00\x10",
}
_PLACE = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}  # numbers in each
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
        got = f"cannot be read as a DICOM image{compression(path)}"
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
    if kind := _no_scan(tags.get("SOPClassUID", "")):
        return kind
    if tags.get("NumberOfFrames", "1") != "1":
        return f"{tags['NumberOfFrames']} frames in one file, which are not read"
    if tags.get("SamplesPerPixel", "1") != "1" or tags.get("PhotometricInterpretation") != "MONOCHROME2":
        return f"colour or inverted greys ({tags.get('PhotometricInterpretation', 'unknown')})"
    return ""


def why_no_image(path: Path) -> str:
    """What a file is that `open_slice` refuses and that is no damaged slice.

    >>> why_no_image(Path(__file__))
    'no DICOM image'
    """
    kind = _no_scan(sop_class(read_head(path)))
    return f"no DICOM image ({kind})" if kind else "no DICOM image"


def _no_scan(sop_class: str) -> str:
    kind = sop_class.removeprefix(_STORAGE) if sop_class.startswith(_STORAGE) else ""
    return next((name for start, name in _NO_SCANS.items() if f"{kind}.".startswith(f"{start}.")), "")


def why_unusable(image: Slice) -> str:
    """Why a slice cannot be put into a volume, or nothing: its place or its units are not told.

    >>> why_unusable(Slice(Path("IM1"), {"RescaleSlope": "1"}, (512, 512)))
    'no ImagePositionPatient'
    """
    return _why_no_place(image) or _why_no_units(image)


def is_damaged_slice(path: Path) -> bool:
    """Whether a file that `open_slice` refuses may be an image of a volume: it is cut off, or in disorder.

    It calls itself one, or is marked as DICOM and does not say what it is, which reports and indices do.

    >>> is_damaged_slice(Path(__file__))
    False
    """
    kind = sop_class(read_head(path))
    if not kind:
        return has_mark(path)
    return kind.startswith(_STORAGE) and kind.removeprefix(_STORAGE).split(".")[0] in _VOLUME_CLASSES


def compression(path: Path) -> str:
    """Return the name of a compressed file's transfer syntax, for messages; empty for an uncompressed file.

    >>> compression(Path(__file__))
    ''
    """
    uid = read_head(path).get(TRANSFER_SYNTAX, "") if path.is_file() else ""
    return "" if uid in _PLAIN else f" (transfer syntax {uid})"


def read_slice(image: Slice) -> NDArray[np.float32]:
    """Read the voxels (columns, rows), rescaled: HU of CT, the modality's units of others.

    Raises:
        ValueError: pixel data that are cut off or damaged.
    """
    _require_pixels(image)
    reader = _reader(image.path)
    reader.SetOutputPixelType(sitk.sitkFloat32)
    jpeg = read_head(image.path).get(TRANSFER_SYNTAX, "").startswith(_JPEG)
    try:
        with refuse_damaged_jpeg(image.path) if jpeg else nullcontext():
            voxels: NDArray[np.float32] = sitk.GetArrayFromImage(reader.Execute())
    except RuntimeError as error:
        got = f"its pixel data cannot be read{compression(image.path)}"
        raise ValueError(f"{image.path}: {got}; whole files are read, copy it again") from error
    return voxels[0].T


def _why_no_place(image: Slice) -> str:
    for keyword, count in _PLACE.items():
        if image.numbers(keyword, count) is None:
            text = image.tags.get(keyword, "")
            return f"{keyword} {text}, not {count} decimal numbers" if text else f"no {keyword}"
    along = np.reshape(image.numbers("ImageOrientationPatient", 6) or (), (2, 3))
    if np.abs(along @ along.T - np.eye(2)).max() > _UNIT:
        return f"rows and columns that are no unit vectors at right angles ({image.tags['ImageOrientationPatient']})"
    return "" if image.spacing.min() > 0 else f"a pixel spacing of {image.tags['PixelSpacing']}"


def _why_no_units(image: Slice) -> str:
    """GDCM takes a slope or intercept that it cannot read for none, and a slope of 0 for 1."""
    for keyword in ("RescaleSlope", "RescaleIntercept"):
        text = image.tags.get(keyword, "")
        if text and image.numbers(keyword) is None:
            return f"a {keyword} of {text}"
    return "a RescaleSlope of 0" if image.numbers("RescaleSlope") == (0.0,) else ""


def _require_pixels(image: Slice) -> None:
    """Refuse plain pixel data that are shorter than rows x columns: GDCM fills the rest with anything."""
    tag = _PLAIN.get(read_head(image.path).get(TRANSFER_SYNTAX, ""))
    if tag is None:  # compressed: the decoder counts
        return
    columns, rows = image.size
    claimed = columns * rows * int(image.tags["BitsAllocated"]) // 8
    with image.path.open("rb") as stream:
        head = stream.read(max(image.path.stat().st_size - claimed, 0))
    if tag not in head:
        got = f"holds fewer than the {claimed} bytes of pixel data that {rows} rows of {columns} take"
        raise ValueError(f"{image.path}: {got}; whole files are read, copy it again")


def _reader(path: Path) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    return reader


def _clean(text: str) -> str:
    """Text without its padding; bytes that are no UTF-8 (of other character sets) become marks of themselves."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace").strip("\0 ")
