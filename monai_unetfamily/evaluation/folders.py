"""A folder of label maps against a folder of references."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from monai_unetfamily.evaluation.cases import Score, bounding_boxes, evaluate_case
from monai_unetfamily.volumes.cases import ignore_label
from monai_unetfamily.volumes.nifti import GRID_TOLERANCE, Labels, grid_shift, list_volumes, read_volume, stem

_LARGEST_LABEL = 65535  # uint16; bounding_boxes works on a list as long as the largest label
_SHEAR_TOLERANCE = 1e-3  # cosine between two axes, the limit ITK uses


def evaluate_folders(
    predictions: Path,
    references: Path | Sequence[Path],
    classes: Mapping[int, str] | None = None,
    tolerance_mm: float = 1.0,
    progress: Callable[[str], None] | None = None,
) -> list[Score]:
    """Score every NIfTI file in one folder against the file of the same name in another.

    Names are compared without `.nii` and `.nii.gz`; hidden files are left out. Both sides must hold the same
    names: nothing is skipped. For a part of a folder hand over a list of paths as `references`. Where both
    sides are single files they are a pair whatever their names, and the prediction's name is the case.

    Args:
        predictions: folder of label maps, or one file.
        references: folder of label maps, one file, or a list of files.
        classes: label id -> name; 0, the background, is not scored. Without it every label that occurs anywhere is
            scored and named by its id; with it, reference labels that it lacks are not scored. Where it calls an id
            "ignore", a reference's voxels of that id are no class's, neither there nor in the prediction: a class
            that they cut ends there in both.
        tolerance_mm: deviation in mm that the surface dice forgives.
        progress: called with one line of text after each case.

    Raises:
        FileNotFoundError: a path is missing or a folder holds no NIfTI file.
        ValueError: a prediction without a reference or the reverse, one name twice, grids that differ (shape,
            or affine by more than 1e-3 voxels) or have sheared axes, labels that are not whole numbers from 0 to
            65535, a predicted label that `classes` lacks, no label at all, or what `evaluate_case` refuses.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "ct.nii.gz"
    ...     nib.save(nib.Nifti1Image(np.eye(5, dtype=np.uint8)[..., None], np.eye(4)), file)
    ...     [score] = evaluate_folders(file, file, {1: "vessel"})
    >>> score.case, score.dice, score.hd95_mm
    ('ct', 1.0, 0.0)
    """
    pairs = _pairs(predictions, references)
    names = _found_classes(pairs) if classes is None else classes
    ignored = ignore_label(names)
    table = {label: name for label, name in names.items() if label not in (0, ignored)}
    scores = []
    for number, (case, prediction, reference) in enumerate(pairs, start=1):
        scores += _evaluate_files(case, prediction, reference, table, tolerance_mm, ignored)
        if progress is not None:
            progress(f"{number}/{len(pairs)} {case}")
    return scores


def _files_by_case(source: Path | Sequence[Path]) -> dict[str, Path]:
    """Case name -> NIfTI file."""
    return {stem(file): file for file in list_volumes([source] if isinstance(source, Path) else source)}


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


def _found_classes(pairs: Sequence[tuple[str, Path, Path]]) -> dict[int, str]:
    """Every label but 0 that occurs in any file, named by its id."""
    files = [file for _, *both in pairs for file in both]
    found = {label for file in files for label in bounding_boxes(_read_labels(file)[0])}
    if not found:
        raise ValueError(f"got only label 0 in {len(files)} files; another is needed: check the folders")
    return {label: str(label) for label in sorted(found)}


def _evaluate_files(
    case: str,
    prediction: Path,
    reference: Path,
    classes: Mapping[int, str],
    tolerance_mm: float,
    ignored: int | None,
) -> list[Score]:
    labels, affine = _read_labels(prediction)
    truth, truth_affine = _read_labels(reference)
    if labels.shape != truth.shape or grid_shift(affine, truth_affine) > GRID_TOLERANCE:
        raise ValueError(
            f"got different grids in {prediction}, {labels.shape}, and {reference}, {truth.shape}; equal"
            f" shapes, and affines within {GRID_TOLERANCE} voxels, are allowed: bring one onto the other's grid"
        )
    if ignored is not None:
        labels, truth = (np.where(truth == ignored, 0, each).astype(np.uint16) for each in (labels, truth))
    if unknown := sorted(bounding_boxes(labels).keys() - classes.keys()):
        raise ValueError(f"got labels {unknown} in {prediction}; {sorted(classes)} are allowed: complete the classes")
    return evaluate_case(labels, truth, _spacing(affine, prediction), classes, tolerance_mm, case)


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


def _read_labels(path: Path) -> tuple[Labels, NDArray[np.float64]]:
    """Labels (x, y, z) as uint16 and affine (4, 4); whole numbers stored as floats are fine."""
    values, affine = read_volume(path)  # float32 is exact up to 2**24
    right = (values >= 0) & (values <= _LARGEST_LABEL) & (values == np.trunc(values))  # False for nan
    if not right.all():
        raise ValueError(
            f"got {int((~right).sum())} voxels in {path} that are no label; whole numbers from 0 to"
            f" {_LARGEST_LABEL} are allowed: give a label map, not an image or a probability"
        )
    return values.astype(np.uint16), affine
