"""A folder of label maps against a folder of references."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from monai_unetfamily.evaluation.cases import Score, bounding_boxes, evaluate_case
from monai_unetfamily.volumes.nifti import GRID_TOLERANCE, Labels, grid_shift
from monai_unetfamily.volumes.sources import Affine, is_picture, list_sources, read_label_map, stem

_LARGEST_LABEL = 65535  # uint16; bounding_boxes works on a list as long as the largest label
_SHEAR_TOLERANCE = 1e-3  # cosine between two axes, the limit ITK uses


def evaluate_folders(
    predictions: Path,
    references: Path | Sequence[Path],
    classes: Mapping[int, str] | None = None,
    tolerance: float = 1.0,
    progress: Callable[[str], None] | None = None,
) -> list[Score]:
    """Score every NIfTI file, or every picture, in one folder against the file of the same name in another.

    Names are compared without `.nii.gz`, `.png` and their like; hidden files are left out. Both sides must hold the
    same names: nothing is skipped. For a part of a folder hand over a list of paths as `references`. Where both
    sides are single files they are a pair whatever their names, and the prediction's name is the case.

    Args:
        predictions: folder of label maps, or one file.
        references: folder of label maps, one file, or a list of files.
        classes: label id -> name; 0, the background, is not scored. Without it every label that occurs anywhere is
            scored and named by its id; with it, reference labels that it lacks are not scored.
        tolerance: deviation in mm (pixels) that the surface dice forgives.
        progress: called with one line of text after each case.

    Raises:
        FileNotFoundError: a path is missing or a folder holds neither NIfTI files nor pictures.
        ValueError: a prediction without a reference or the reverse, one name twice, volumes and pictures mixed,
            grids that differ (shape, or affine by more than 1e-3 voxels) or have sheared axes, labels that are not
            whole numbers from 0 to 65535, a predicted label that `classes` lacks, no label at all, or what
            `evaluate_case` refuses.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "ct.nii.gz"
    ...     nib.save(nib.Nifti1Image(np.eye(5, dtype=np.uint8)[..., None], np.eye(4)), file)
    ...     [score] = evaluate_folders(file, file, {1: "vessel"})
    >>> score.case, score.dice, score.hd95
    ('ct', 1.0, 0.0)
    """
    pairs = _pairs(predictions, references)
    _refuse_mixture([file for _, *both in pairs for file in both])
    table = _found_classes(pairs) if classes is None else {label: name for label, name in classes.items() if label}
    scores = []
    for number, (case, prediction, reference) in enumerate(pairs, start=1):
        scores += _evaluate_files(case, prediction, reference, table, tolerance)
        if progress is not None:
            progress(f"{number}/{len(pairs)} {case}")
    return scores


def _files_by_case(source: Path | Sequence[Path]) -> dict[str, Path]:
    """Case name -> file."""
    return {stem(file): file for file in list_sources([source] if isinstance(source, Path) else source)}


def _pairs(predictions: Path, references: Path | Sequence[Path]) -> list[tuple[str, Path, Path]]:
    """(case, prediction, reference), strictly one to one."""
    mine, theirs = _files_by_case(predictions), _files_by_case(references)
    if predictions.is_file() and isinstance(references, Path) and references.is_file():
        return [(case, file, references) for case, file in mine.items()]
    _refuse_unpaired(mine, theirs, "reference")
    _refuse_unpaired(theirs, mine, "prediction")
    return [(case, file, theirs[case]) for case, file in mine.items()]


def _refuse_unpaired(files: dict[str, Path], others: dict[str, Path], missing: str) -> None:
    alone = [file for case, file in files.items() if case not in others]
    if alone:
        raise ValueError(
            f"got {len(alone)} of {len(files)} files without a {missing}, the first is {alone[0]}; the same"
            " names on both sides are allowed: add what is missing, or list only the wanted references"
        )


def _refuse_mixture(files: Sequence[Path]) -> None:
    """A mean over millimetres and pixels means nothing."""
    pictures = [file for file in files if is_picture(file)]
    if pictures and len(pictures) < len(files):
        raise ValueError(
            f"got {len(pictures)} pictures among {len(files)} files, the first is {pictures[0]}; volumes or pictures"
            " are allowed: evaluate them apart"
        )


def _found_classes(pairs: Sequence[tuple[str, Path, Path]]) -> dict[int, str]:
    """Every label but 0 that occurs in any file, named by its id."""
    files = [file for _, *both in pairs for file in both]
    found = {label for file in files for label in bounding_boxes(_read_labels(file)[0])}
    if not found:
        raise ValueError(f"got only label 0 in {len(files)} files; another is needed: check the folders")
    return {label: str(label) for label in sorted(found)}


def _evaluate_files(
    case: str, prediction: Path, reference: Path, classes: Mapping[int, str], tolerance: float
) -> list[Score]:
    labels, affine = _read_labels(prediction)
    truth, truth_affine = _read_labels(reference)
    if labels.shape != truth.shape or grid_shift(affine, truth_affine) > GRID_TOLERANCE:
        raise ValueError(
            f"got different grids in {prediction}, {labels.shape}, and {reference}, {truth.shape}; equal"
            f" shapes, and affines within {GRID_TOLERANCE} voxels, are allowed: bring one onto the other's grid"
        )
    if unknown := sorted(bounding_boxes(labels).keys() - classes.keys()):
        raise ValueError(f"got labels {unknown} in {prediction}; {sorted(classes)} are allowed: complete the classes")
    spacing = None if is_picture(prediction) else _spacing(affine, prediction)
    return evaluate_case(labels, truth, spacing, classes, tolerance, case)


def _spacing(affine: NDArray[np.float64], path: Path) -> list[float]:
    """Voxel edges in mm; distances along sheared axes would be wrong, so these are refused."""
    edges = nib.affines.voxel_sizes(affine)
    directions = affine[:3, :3] / edges
    shear = float(np.abs(directions.T @ directions - np.eye(3)).max())
    if shear > _SHEAR_TOLERANCE:
        raise ValueError(
            f"got axes with a cosine of {shear:.2g} between them in {path}; up to {_SHEAR_TOLERANCE} is"
            " allowed: resample both volumes to an orthogonal grid"
        )
    # float32 headers hold 0.8 as 0.800000012: files score as their arrays with the spacing that was meant
    return [round(float(edge), 6) for edge in edges]


def _read_labels(path: Path) -> tuple[Labels, Affine]:
    """Labels as uint16 and their affine; whole numbers stored as floats are fine."""
    values, affine = read_label_map(path)  # float32 is exact up to 2**24
    right = (values >= 0) & (values <= _LARGEST_LABEL) & (values == np.trunc(values))  # False for nan
    if not right.all():
        raise ValueError(
            f"got {int((~right).sum())} voxels in {path} that are no label; whole numbers from 0 to"
            f" {_LARGEST_LABEL} are allowed: give a label map, not an image or a probability"
        )
    return values.astype(np.uint16), affine
