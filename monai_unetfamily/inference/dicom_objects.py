"""The DICOM Segmentations of a run, where they are asked for: checked at the door and before each case, and written.

What it needs (SimpleITK, pydicom, highdicom) is loaded by a run that writes some, and by no other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from monai_unetfamily.bundles.codes import maker_of
from monai_unetfamily.inference.records import Request
from monai_unetfamily.volumes.files import make_folder
from monai_unetfamily.volumes.nifti import Labels
from monai_unetfamily.volumes.segment_codes import Maker
from monai_unetfamily.volumes.studies import Image, Study


def require_series(studies: Sequence[Study]) -> None:
    """Refuse a run that is to write DICOM Segmentations and cannot: a package is missing, or a case is no DICOM.

    Raises:
        ImportError: says what to install.
        ValueError: names the first case.

    >>> require_series([Study("ct", (Path("ct.nii.gz"),), "nifti")])
    Traceback (most recent call last):
    ValueError: ct.nii.gz: is no DICOM series, ...
    """
    from monai_unetfamily.volumes.dicom_seg import require_packages

    require_packages()
    if other := next((study for study in studies if study.kind != "dicom"), None):
        raise ValueError(
            f"{other.files[0]}: is no DICOM series, to which a DICOM Segmentation refers; name DICOM series alone, or "
            "leave --dicom-seg (dicom_seg=True) out."
        )


@dataclass(frozen=True)
class Segmentations:
    """The DICOM Segmentations by a maker, of classes of these names (label id -> name, with the background)."""

    names: Mapping[int, str]
    maker: Maker

    def check(self, study: Study, image: Image) -> None:
        """Refuse a case of which none can be written: a ValueError, before the network runs."""
        from monai_unetfamily.volumes.dicom_seg import check_segmentation

        if image.grid is not None:
            check_segmentation(study.files, image.grid, self.names, self.maker)

    def write(self, study: Study, image: Image, labels: Labels, file: Path) -> None:
        """Write what the label map holds.

        Raises:
            ValueError: slices to which none can refer.
            OSError: the file cannot be written.
        """
        from monai_unetfamily.volumes.dicom_seg import write_segmentation

        if image.grid is not None:
            make_folder(file.parent)
            write_segmentation(labels, study.files, image.grid, self.names, self.maker, file)


def segmentations_of(roots: Sequence[Path], request: Request, names: Mapping[int, str]) -> Segmentations:
    """Those of a run with these bundles, the folder of each, that was asked for so.

    Raises:
        ValueError: metadata whose codes cannot be used.
    """
    return Segmentations(names, maker_of(roots, [hashed for _, hashed in request.bundles]))
