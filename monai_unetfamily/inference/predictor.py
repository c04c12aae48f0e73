"""A bundle and one file in, labels on its own grid out: what a cohort does to each of its cases."""

from pathlib import Path

import torch

from monai_unetfamily.bundles.bundle import Bundle
from monai_unetfamily.bundles.inputs import check_kind, check_values
from monai_unetfamily.bundles.metadata import image_channels
from monai_unetfamily.bundles.reasons import reason_of
from monai_unetfamily.inference.segment import Case, prepare, segment
from monai_unetfamily.volumes.headers import MAX_VOXELS
from monai_unetfamily.volumes.nifti import Labels
from monai_unetfamily.volumes.reading import Gaps, read_study
from monai_unetfamily.volumes.studies import Image, Study, find_studies


@torch.inference_mode()
def predict_volume(bundle: Bundle, path: Path) -> Labels:
    """Labels of a volume (x, y, z), a DICOM series, or a picture (rows, columns), on its own grid.

    Where classes may overlap they are masks, 0 or 1, with a last axis of classes.

    Args:
        bundle: opened for prediction.
        path: a file or folder that is one image (`studies.find_studies`).

    Raises:
        FileNotFoundError, ValueError: the file cannot be segmented; the message names it and says why.
        MemoryError: a GPU that one window is too large for.
    """
    studies = find_studies([path]).studies
    if len(studies) != 1:
        raise ValueError(f"{path}: holds {len(studies)} images; one is meant here, name it, or take predict_cohort.")
    _, case = load_case(bundle, studies[0])
    try:
        *_, last = segment(bundle, case)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{path}: {reason_of(error)}") from error
    return last.labels


def load_case(
    bundle: Bundle, study: Study, *, nan: str = "refuse", gaps: Gaps = "refuse", max_voxels: int = MAX_VOXELS
) -> tuple[Image, Case]:
    """Read a study that the bundle can take, and preprocess it; the options are those of `read_study`.

    Raises:
        FileNotFoundError, ValueError: the study cannot be used; the message names it and says why.
    """
    picture, where = study.kind == "picture", study.files[0]
    check_kind(bundle.root, where, picture)
    channels = None if picture else image_channels(bundle.root)
    image = read_study(study, nan=nan, gaps=gaps, max_voxels=max_voxels, channels=channels)
    return image, prepare_image(bundle, image, where)


def prepare_image(bundle: Bundle, image: Image, where: Path) -> Case:
    """Preprocess an image that has been read, a picture once its values are seen to be the bundle's.

    Args:
        bundle: opened for prediction.
        image: as read.
        where: its file or name, for the message.

    Raises:
        ValueError: the image cannot be used; the message names it and says why.
    """
    if image.grid is None:
        check_values(bundle.root, where, image.voxels)
    try:
        return prepare(bundle, image)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{where}: {reason_of(error)}") from error
