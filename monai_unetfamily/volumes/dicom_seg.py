"""Labels as a DICOM Segmentation (PS3.3, A.51): bit masks that refer to the very slices they were made of.

Frame by frame a segmentation lies where its source slice lies, to the last digit of its header. Segments are numbered
from 1 without gaps, as the standard wants it, whatever the label ids; a class that is nowhere is described too.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_OID, uuid5

import numpy as np
from nibabel.nifti1 import Nifti1Pair
from numpy.typing import NDArray

from monai_unetfamily import __version__
from monai_unetfamily.volumes.colors import palette
from monai_unetfamily.volumes.dicom_sources import read_sources
from monai_unetfamily.volumes.files import atomic_file
from monai_unetfamily.volumes.nifti import Labels
from monai_unetfamily.volumes.segment_codes import OWN_SCHEME, Code, Maker, plain

if TYPE_CHECKING:
    from highdicom.seg import Segmentation, SegmentDescription
    from highdicom.sr import CodedConcept
    from pydicom import Dataset

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
        grid: of the labels, as `dicom.read_series` gives it.
        names: label id -> name, of each class that is described; 0, the background, is none.
        maker: has codes for each.
        path: an existing file is replaced.

    Raises:
        ValueError: slices that `dicom_sources.read_sources` refuses, or whose headers highdicom does.
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
