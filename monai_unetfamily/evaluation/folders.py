"""A folder of predictions against a folder of references."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from monai_unetfamily.evaluation.cases import Score, evaluate_case
from monai_unetfamily.evaluation.sides import Side, find_classes, labels_in, list_sides, open_side, unlabelled
from monai_unetfamily.volumes.cases import ignore_label
from monai_unetfamily.volumes.nifti import GRID_TOLERANCE, grid_shift
from monai_unetfamily.volumes.sources import is_picture, list_sources

_SHEAR_TOLERANCE = 1e-3  # cosine between two axes, the limit ITK uses


def evaluate_folders(
    predictions: Path,
    references: Path | Sequence[Path],
    classes: Mapping[int, str] | None = None,
    tolerance: float = 1.0,
    progress: Callable[[str], None] | None = None,
) -> list[Score]:
    """Score every volume, or every picture, in one folder against the file of the same name in another.

    Volumes are NIfTI, MetaImage (`.mha`, `.mhd`) and NRRD files, pictures PNG and TIFF. Names are compared without
    `.nii.gz`, `.png` and their like, so that the two sides may have different formats. Both sides must hold the same
    names: no image is left out but those that `sources.list_sources` names. For a part of a folder hand over a list of
    paths as `references`. Where both sides are single files they are a pair whatever their names, and the
    prediction's name is the case.

    A file is a label map, or, of a volume, 4-D masks (X, Y, Z, C) of classes that may overlap, channel c of label id
    c + 1. A case may also be a folder `<name>/` with one mask a class (`masks.write_split`), compared by the classes'
    names.

    Args:
        predictions: folder of label maps, of 4-D masks or of folders of masks; or one file.
        references: the same, or a list of files.
        classes: label id -> name; 0, the background, is not scored. Without it every label that occurs anywhere is
            scored, under the name that a header or a mask's file gives it, or else its id; with it, reference labels
            that it lacks are not scored. Where it calls an id "ignore", a reference's voxels of that id are no
            class's, neither there nor in the prediction: a class that they cut ends there in both.
        tolerance: deviation in mm (pixels) that the surface dice forgives.
        progress: called with one line of text after each case.

    Raises:
        FileNotFoundError: a path is missing or a folder holds neither volumes nor pictures.
        ValueError: a prediction without a reference or the reverse, one name twice, volumes and pictures mixed, an
            image in a folder that is of a kind that is not read,
            grids that differ (shape, or affine by more than 1e-3 voxels) or have sheared axes, a label map against
            4-D masks, labels that are not whole numbers from 0 to 65535 (masks: 0 or 1), a predicted label that
            `classes` lacks, masks or channels of other names, no label at all, or what `evaluate_case` refuses.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "ct.nii.gz"
    ...     nib.save(nib.Nifti1Image(np.eye(5, dtype=np.uint8)[..., None], np.eye(4)), file)
    ...     [score] = evaluate_folders(file, file, {1: "vessel"})
    >>> score.case, score.dice, score.hd95
    ('ct', 1.0, 0.0)
    """
    pairs = _pairs(predictions, references)
    files = [file for _, *both in pairs for file in both]
    _refuse_mixture(files)
    names = find_classes(files) if classes is None else classes
    ignored = ignore_label(names)
    table = {label: name for label, name in names.items() if label not in (0, ignored)}
    scores = []
    for number, (case, prediction, reference) in enumerate(pairs, start=1):
        scores += _evaluate_pair(case, prediction, reference, table, tolerance, ignored)
        if progress is not None:
            progress(f"{number}/{len(pairs)} {case}")
    return scores


def _pairs(predictions: Path, references: Path | Sequence[Path]) -> list[tuple[str, Path, Path]]:
    """(case, prediction, reference), strictly one to one."""
    mine, theirs = list_sides(predictions), list_sides(references)
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
    pictures = [file for file in files if any(map(is_picture, list_sources([file])))]
    if pictures and len(pictures) < len(files):
        raise ValueError(
            f"got {len(pictures)} pictures among {len(files)} files, the first is {pictures[0]}; volumes or pictures"
            " are allowed: evaluate them apart"
        )


def _evaluate_pair(
    case: str,
    prediction: Path,
    reference: Path,
    classes: Mapping[int, str],
    tolerance: float,
    ignored: int | None,
) -> list[Score]:
    mine, theirs = open_side(prediction, classes), open_side(reference, classes, ignored)
    _refuse_unlike(mine, theirs)
    if ignored is not None:
        outside = unlabelled(theirs, ignored)
        mine, theirs = mine.without(outside), theirs.without(outside)
    if unknown := sorted(labels_in(mine.labels, mine.axes) - classes.keys()):
        raise ValueError(f"got labels {unknown} in {prediction}; {sorted(classes)} are allowed: complete the classes")
    spacing = _spacing(mine.affine, prediction) if mine.axes == 3 else None
    if mine.form == theirs.form == "one label map":
        return evaluate_case(mine.labels, theirs.labels, spacing, classes, tolerance, case)
    scores = []
    for label, name in classes.items():
        scores += evaluate_case(mine.mask(label), theirs.mask(label), spacing, {1: name}, tolerance, case)
    return scores


def _refuse_unlike(mine: Side, theirs: Side) -> None:
    shape, other = mine.labels.shape[: mine.axes], theirs.labels.shape[: theirs.axes]
    if shape != other or grid_shift(mine.affine, theirs.affine) > GRID_TOLERANCE:
        raise ValueError(
            f"got different grids in {mine.path}, {shape}, and {theirs.path}, {other}; equal"
            f" shapes, and affines within {GRID_TOLERANCE} voxels, are allowed: bring one onto the other's grid"
        )
    if {mine.form, theirs.form} == {"one label map", "4-D masks"}:
        raise ValueError(
            f"got {mine.form} in {mine.path} against {theirs.form} in {theirs.path}; the same on both sides is allowed:"
            " convert one"
        )


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
