"""Write a label map as a DICOM Segmentation that refers to its source slices."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_OID, uuid5

import numpy as np
from nibabel.nifti1 import Nifti1Pair
from numpy.typing import NDArray

from monai_unetfamily import __version__
from monai_unetfamily.io.atomic import atomic_file
from monai_unetfamily.io.dicom.codes import OWN_SCHEME, Code, Maker, plain
from monai_unetfamily.io.dicom.slices import Slice, open_slice, sort_slices
from monai_unetfamily.io.dicom.stacks import even_step
from monai_unetfamily.io.label_table import palette
from monai_unetfamily.io.nifti import Labels

if TYPE_CHECKING:
    from highdicom.seg import Segmentation, SegmentDescription
    from highdicom.sr import CodedConcept
    from pydicom import Dataset

# The slices that a label map was made of, as an object that refers to them needs them: headers, held against the
# grid.
#
# A label's column, row and slice are those of its source: column i, row j of the k-th slice along the normal. That is
# held here against what each slice's header says of its own place.


_NEAR = 0.25  # of a voxel: reading allows slices to lie 0.1 off the even grid in their planes, about as much across
_SAME = 0.01  # mm, to which positions are written
_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
_SHARED = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
# must be there, and may be empty (type 2, PS3.3): what takes names away often takes them whole
_MAY_BE_EMPTY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName"),
)
_SEXES = ("M", "F", "O", "", None)


def read_sources(files: Sequence[Path], grid: Nifti1Pair) -> "list[Dataset]":
    """Read the headers of a series, sorted as `io.dicom.read_series` sorts its slices; no voxel is read.

    What patient and study must have and may leave empty is there, empty where the file lacks it; a slice without
    thickness is as thick as slices are apart. All have the first one's orientation, to which theirs are equal within
    0.01 mm at every corner.

    Args:
        files: of the slices, in any order.
        grid: of what was made of them, (X, Y, Z) columns, rows and slices.

    Raises:
        ValueError: slices that do not lie where the grid has them (it was resampled), that are turned against each
            other, or whose headers cannot be referred to.
    """
    slices, offsets = sort_slices([open_slice(path) for path in files])
    _require_grid(slices, grid)
    headers = [_header(image.path) for image in slices]
    _require_own_names(headers, slices)
    for header in headers:
        header.ImageOrientationPatient = headers[0].ImageOrientationPatient
        if not header.get("SliceThickness"):
            header.SliceThickness = f"{even_step(offsets):.8g}"
    return headers


def _require_grid(slices: Sequence[Slice], grid: Nifti1Pair) -> None:
    """Refuse a grid that is not the slices' own: its voxels would be drawn over others than they were made of."""
    first = slices[0]
    shape = (*first.size, len(slices))
    if grid.shape[:3] != shape:
        raise ValueError(
            f"{first.path.parent}: got labels of {grid.shape[:3]} voxels for {shape} columns, rows and slices: they "
            "were resampled, and a DICOM Segmentation lies on the slices themselves; leave --dicom-seg out, or --gaps"
        )
    pixels = _corners(first)
    to_index = np.linalg.inv(_TO_LPS @ np.asarray(grid.affine, np.float64))
    for k, image in enumerate(slices):
        own = _places(image, image, pixels)
        index = own @ to_index[:3, :3].T + to_index[:3, 3]
        off = np.abs(index - [(*pixel, k) for pixel in pixels]).max()
        if off > _NEAR:
            raise ValueError(f"{image.path}: lies {off:.3g} voxels off its labels; up to {_NEAR} is allowed, sort them")
        turned = np.abs(own - _places(image, first, pixels)).max()
        if turned > _SAME:
            got = f"its corners lie {turned:.3g} mm off where {first.path.name}'s orientation and spacing put them"
            raise ValueError(f"{image.path}: {got}; {_SAME} mm is allowed, leave --dicom-seg out")


def _corners(image: Slice) -> NDArray[np.float64]:
    """The corner pixels (4, 2): column, row."""
    columns, rows = image.size
    return np.array(list(product((0.0, columns - 1.0), (0.0, rows - 1.0))))


def _places(image: Slice, like: Slice, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where pixels (n, 2) of an image lie (n, 3), mm, LPS+, by its position and another one's axes and spacing."""
    return image.position + pixels * like.spacing @ like.axes[:2]


def _header(path: Path) -> "Dataset":
    import pydicom

    header = pydicom.dcmread(path, stop_before_pixels=True, force=True)  # GDCM, which read it, needs no mark either
    if missing := [keyword for keyword in _NEEDED if not header.get(keyword)]:
        raise ValueError(
            f"{path}: has no {', '.join(missing)}, by which a DICOM Segmentation refers to it; complete it, or leave "
            "--dicom-seg out"
        )
    for keyword in _MAY_BE_EMPTY:
        if keyword not in header:
            setattr(header, keyword, None)
    if header.PatientSex not in _SEXES:
        raise ValueError(f"{path}: PatientSex is {header.PatientSex!r}; M, F, O or nothing is allowed, correct it")
    return header


def _require_own_names(headers: "Sequence[Dataset]", slices: Sequence[Slice]) -> None:
    folder = slices[0].path.parent
    if len({header.SOPInstanceUID for header in headers}) < len(headers):
        raise ValueError(
            f"{folder}: several slices have one SOPInstanceUID, so that none can be referred to; export them again, or "
            "leave --dicom-seg out"
        )
    for keyword in _SHARED:
        if len(values := sorted({header[keyword].value for header in headers})) > 1:
            raise ValueError(f"{folder}: got slices of {len(values)} {keyword}s, {values}; one is allowed, sort them")


# Labels as a DICOM Segmentation (PS3.3, A.51): bit masks that refer to the very slices they were made of.
#
# Frame by frame a segmentation lies where its source slice lies, to the last digit of its header. Segments are numbered
# from 1 without gaps, as the standard wants it, whatever the label ids; a class that is nowhere is described too.

_PACKAGES = ("pydicom", "highdicom")
_SERIES = 1000  # is added to the source's number
_MOST = 2**31 - 1  # of a number (IS)
_UTF8 = "ISO_IR 192"
_PURPOSE = "Automatic segmentation; research use, not diagnosis"


def require_packages() -> None:
    """Refuse to go on without the packages of the extra `dicom`: an ImportError that says what to install.

    >>> require_packages()
    """
    if missing := [name for name in _PACKAGES if find_spec(name) is None]:
        raise ImportError(
            f"a DICOM Segmentation needs {' and '.join(missing)}, which this environment lacks: pip install "
            "'monai-unetfamily[dicom]'."
        )


def check_segmentation(files: Sequence[Path], grid: Nifti1Pair, names: Mapping[int, str], maker: Maker) -> None:
    """Raise what `write_segmentation` would of these slices, before anything is known of their labels."""
    sources = read_sources(files, grid)
    _build(sources, np.zeros((1, sources[0].Rows, sources[0].Columns), np.uint8), names, maker)


def write_segmentation(
    labels: Labels, files: Sequence[Path], grid: Nifti1Pair, names: Mapping[int, str], maker: Maker, path: Path
) -> None:
    """Write labels as a DICOM Segmentation of type BINARY, all of it or nothing.

    Frames without a voxel of their segment are left out, as usual; where no segment has any, each has one empty frame,
    in the first slice's plane. The same labels of the same slices by the same maker have the same UIDs; anything
    else has others.

    Args:
        labels: a label map (X, Y, Z), or masks (X, Y, Z, C) of classes that may overlap, channel c of label id c + 1.
        files: of the slices that they were made of, in any order.
        grid: of the labels, as `io.dicom.read_series` gives it.
        names: label id -> name, of each class that is described; 0, the background, is none.
        maker: has codes for each.
        path: an existing file is replaced.

    Raises:
        ValueError: slices that `read_sources` refuses, or whose headers highdicom does.
        OSError: the file cannot be written; what was there before is untouched.
    """
    sources = read_sources(files, grid)
    segmentation = _build(sources, _frames(labels, [label for label in sorted(names) if label]), names, maker)
    with atomic_file(path) as stream:
        segmentation.save_as(stream, enforce_file_format=True)


def _frames(labels: Labels, ids: Sequence[int]) -> NDArray[np.unsignedinteger[Any]]:
    """Segment numbers (slices, rows, columns) of a label map; masks (slices, rows, columns, segments) of masks."""
    if labels.ndim == 4:
        chosen = labels.transpose(2, 1, 0, 3)[..., [label - 1 for label in ids]]
        return np.ascontiguousarray(chosen, np.uint8)
    none = len(ids) + 1  # a segment that is not there: highdicom refuses labels without a name
    numbers = np.full(max(int(labels.max()), *ids) + 1, none, np.uint8 if none < 2**8 else np.uint16)
    numbers[[0, *ids]] = np.arange(len(ids) + 1)
    return np.take(numbers, labels.T)


def _build(
    sources: "Sequence[Dataset]", frames: NDArray[np.unsignedinteger[Any]], names: Mapping[int, str], maker: Maker
) -> "Segmentation":
    from highdicom import PlanePositionSequence
    from highdicom.coding_schemes import CodingSchemeIdentificationItem
    from highdicom.seg import Segmentation

    first, ids = sources[0], [label for label in sorted(names) if label]
    uid = _Uids(sources, frames, [(names[label], maker.codes[label]) for label in ids], maker)
    empty = not frames.any()
    try:
        segmentation = Segmentation(
            source_images=sources,
            pixel_array=frames[:1] if empty else frames,
            plane_positions=[PlanePositionSequence("PATIENT", first.ImagePositionPatient)] if empty else None,
            omit_empty_frames=not empty,
            segmentation_type="BINARY",
            segment_descriptions=[
                _description(number, label, names[label], maker) for number, label in enumerate(ids, start=1)
            ],
            series_instance_uid=uid.of("series"),
            sop_instance_uid=uid.of("instance"),
            series_number=_series_number(first),
            instance_number=1,
            manufacturer="monai_unetfamily",
            manufacturer_model_name=plain(maker.name),
            device_serial_number=maker.hashed,
            software_versions=__version__,
            series_description=plain(f"{maker.name} segmentation"),
            content_label="SEGMENTATION",
            content_description=_PURPOSE,
            coding_schemes=[CodingSchemeIdentificationItem(OWN_SCHEME, "classes of MONAI bundles by monai_unetfamily")],
            specific_character_set=_UTF8,
        )
        segmentation.ContentCreatorName = None  # nobody; must be there (type 2, PS3.3, table 10.9.3-1)
        return segmentation
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(
            f"{Path(first.filename).parent}: no DICOM Segmentation can refer to these slices ({error}); mend their "
            "headers, or leave --dicom-seg out"
        ) from error


class _Uids:
    """Unique identifiers that follow from what they identify (PS3.5, B.2: of a UUID, below 2.25)."""

    def __init__(self, sources: "Sequence[Dataset]", frames: NDArray[Any], *said: object) -> None:
        digest = sha256(repr((__version__, [source.SOPInstanceUID for source in sources], said)).encode())
        digest.update(np.ascontiguousarray(frames).data)
        self.digest = digest.hexdigest()

    def of(self, what: str) -> str:
        return f"2.25.{uuid5(NAMESPACE_OID, f'{self.digest} {what}').int}"


def _description(number: int, label: int, name: str, maker: Maker) -> "SegmentDescription":
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentDescription
    from pydicom.sr.codedict import codes

    category, kind, modifiers = maker.codes[label]
    description = SegmentDescription(
        segment_number=number,
        segment_label=plain(name),
        segmented_property_category=_coded(category),
        segmented_property_type=_coded(kind),
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            plain(maker.name), codes.DCM.ArtificialIntelligence, plain(maker.version), source="monai_unetfamily"
        ),
        display_color=CIELabColor.from_rgb(*palette(label)),
    )
    if modifiers:
        said = description.SegmentedPropertyTypeCodeSequence[0]
        said.SegmentedPropertyTypeModifierCodeSequence = [_coded(code) for code in modifiers]
    return description


def _coded(code: Code) -> "CodedConcept":
    from highdicom.sr import CodedConcept

    return CodedConcept(*code)


def _series_number(source: "Dataset") -> int:
    """The source's series number and 1000, so that both are listed near each other."""
    number = source.get("SeriesNumber")
    return number + _SERIES if number is not None and 0 <= number <= _MOST - _SERIES else _SERIES
