"""Evaluate a directory of predictions against a directory of references."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from monai_unetfamily.data import ignore_label
from monai_unetfamily.evaluation.metrics import Score, bounding_boxes, evaluate_case
from monai_unetfamily.io import (
    GRID_TOLERANCE,
    Affine,
    Labels,
    contains_images,
    file_names,
    grid_shift,
    is_image2d,
    is_itk,
    list_images,
    mask_of,
    open_volume,
    read_channel_names,
    read_label_map,
    require_channel_names,
    stem,
)

# One side of a comparison: a label map, a 4-D file of masks, or a folder with one mask a class.


_LARGEST_LABEL = 65535  # uint16; bounding_boxes works on a list as long as the largest label

Form = Literal["one label map", "4-D masks", "a folder"]


class Side(NamedTuple):
    """The labels of one case, and where they lie."""

    path: Path
    form: Form
    labels: Labels  # ids (*spatial) or masks (*spatial, C); of a folder nothing (*spatial, 0)
    affine: Affine
    mask: Callable[[int], Labels]  # label id -> (*spatial), 0 or 1

    @property
    def axes(self) -> int:
        """Spatial axes: 3 of a volume, 2 of a picture."""
        return len(self.affine) - 1

    def without(self, voxels: NDArray[np.bool_]) -> "Side":
        """The same with nothing at these voxels, of all classes (*spatial, 1) or of each (*spatial, C)."""
        kept = ~voxels
        labels = self.labels if self.form == "a folder" else self.labels * kept.reshape(self.labels.shape)
        shared = kept.shape[-1] == 1
        return self._replace(labels=labels, mask=lambda label: self.mask(label) * kept[..., 0 if shared else label - 1])


def list_sides(source: Path | Sequence[Path]) -> dict[str, Path]:
    """Case name -> volume or picture; or -> folder of masks, where a folder holds none but its folders do.

    Raises:
        FileNotFoundError, ValueError: what `list_images` raises; files and folders of masks side by side.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     for case in ("a", "b"):
    ...         (Path(folder) / case).mkdir()
    ...         (Path(folder) / case / "liver.nii.gz").touch()
    ...     sorted(list_sides(Path(folder)))
    ['a', 'b']
    """
    if isinstance(source, Path) and source.is_dir():
        folders = sorted(path for path in source.iterdir() if path.is_dir() and contains_images(path))
        if folders and contains_images(source):
            raise ValueError(
                f"{source}: holds label maps, and folders of them ({folders[0].name}) too; one of the two is allowed,"
                " move the others out"
            )
        if folders:
            return {folder.name: folder for folder in folders}
    return {stem(file): file for file in list_images([source] if isinstance(source, Path) else source)}


def open_side(path: Path, classes: Mapping[int, str], ignored: int | None = None) -> Side:
    """Read the labels of a case; a folder's masks are read when they are asked for.

    4-D masks may hold `ignored` besides 0 and 1: voxels that are not labelled for a class.

    Raises:
        FileNotFoundError: a file that is missing.
        ValueError: what `read_labels` raises; other classes than `classes` (label id -> name): channels that a header
            names otherwise, too few of them, or a folder whose files are others.
    """
    if path.is_dir():
        return _open_folder(path, classes)
    labels, affine = read_labels(path, ignored)
    require_channel_names(path, classes)
    axes = len(affine) - 1
    masks = labels.ndim > axes
    if masks and labels.shape[-1] < max(classes, default=1):
        names = list(classes.values())
        raise ValueError(f"got {labels.shape[-1]} masks in {path}; one for each of {names} is allowed: add the others")
    form: Form = "4-D masks" if masks else "one label map"
    return Side(path, form, labels, affine, lambda label: mask_of(labels, label, axes).view(np.uint8))


def unlabelled(side: Side, ignored: int | None) -> NDArray[np.bool_]:
    """Where a label map (*spatial, 1), or each of 4-D masks (*spatial, C), holds `ignored`; a folder's masks cannot."""
    spatial = side.labels.shape[: side.axes]
    if side.form == "a folder":
        return np.zeros((*spatial, 1), bool)
    return (side.labels == ignored).reshape(*spatial, -1)


def read_labels(path: Path, ignored: int | None = None) -> tuple[Labels, Affine]:
    """Label ids (*spatial), or masks (x, y, z, C) of a 4-D file, and the affine; whole floats are fine.

    Masks hold 0 and 1, and `ignored` where there is such a number.

    Raises:
        ValueError: values that are no labels, and what `read_label_map` raises.
    """
    values, affine = read_label_map(path)  # float32 is exact up to 2**24
    largest = _LARGEST_LABEL if values.shape[-1] == 1 else 1
    right = ((values >= 0) & (values <= largest) & (values == np.trunc(values))) | (values == ignored)
    if not right.all():
        raise ValueError(
            f"got {int((~right).sum())} voxels in {path} that are no label; whole numbers from 0 to"
            f" {largest} are allowed: give a label map, or masks, not an image or a probability"
        )
    return (values[..., 0].astype(np.uint16), affine) if largest > 1 else (values.astype(np.uint8), affine)


def labels_in(labels: Labels, axes: int) -> set[int]:
    """Label ids from 1 that occur in a label map of so many axes, or in masks with one axis more.

    >>> labels_in(np.array([[[0, 7]]]), axes=3), labels_in(np.array([[[[0, 1]]]]), axes=3)
    ({7}, {2})
    """
    if labels.ndim == axes:
        return set(bounding_boxes(labels))
    return {channel + 1 for channel in range(labels.shape[-1]) if labels[..., channel].any()}


def find_classes(paths: Sequence[Path]) -> dict[int, str]:
    """Label id -> name of all that occurs in files or folders, by their headers or the masks' names, else by number.

    Raises:
        ValueError: headers that disagree, folders of masks beside files without names, no label at all.
    """
    named = _header_names(path for path in paths if not (path.is_dir() or is_image2d(path) or is_itk(path)))
    folders = [path for path in paths if path.is_dir()]
    if not folders:
        sides = (read_labels(path) for path in paths)
        found = {label for labels, affine in sides for label in labels_in(labels, len(affine) - 1)} | set(named)
        if not found:
            raise ValueError(f"got only label 0 in {len(paths)} files; another is needed: check the folders")
        return {label: named.get(label, str(label)) for label in sorted(found)}
    if len(folders) == len(paths):
        return dict(enumerate(sorted({stem(file) for folder in folders for file in list_images([folder])}), start=1))
    if not named:
        raise ValueError(
            f"got a folder of masks, {folders[0]}, against label ids without names; a data set's names are needed:"
            " evaluate against it with a section, or split both"
        )
    return named


def _header_names(files: Iterable[Path]) -> dict[int, str]:
    named: dict[int, str] = {}
    for file in files:
        named = read_channel_names(open_volume(file, channels=True)) | named
        require_channel_names(file, named)
    return dict(sorted(named.items()))


def _open_folder(folder: Path, classes: Mapping[int, str]) -> Side:
    files = {stem(file): file for file in list_images([folder])}
    wanted = {label: name if name in files else file_names(classes)[label] for label, name in classes.items()}
    if different := sorted(files.keys() ^ set(wanted.values())):
        raise ValueError(
            f"got masks {sorted(files)} in {folder}; {sorted(wanted.values())} are allowed: add or take out {different}"
        )
    first, affine = read_labels(next(iter(files.values())))
    shape = first.shape[: len(affine) - 1]
    nothing = np.empty((*shape, 0), np.uint8)
    return Side(folder, "a folder", nothing, affine, lambda label: _read_mask(files[wanted[label]], shape, affine))


def _read_mask(file: Path, shape: tuple[int, ...], affine: Affine) -> Labels:
    mask, own = read_labels(file)
    if mask.shape != shape or grid_shift(own, affine) > GRID_TOLERANCE:
        raise ValueError(f"got {mask.shape} in {file}; one grid {shape} in the whole folder is allowed: make it so")
    if mask.max() > 1:
        raise ValueError(f"got values up to {mask.max()} in {file}; a mask of 0 and 1 is allowed: set it to 1 there")
    return mask


# A folder of predictions against a folder of references.

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
    names: no image is left out but those that `io.list_images` names. For a part of a folder hand over a list of
    paths as `references`. Where both sides are single files they are a pair whatever their names, and the
    prediction's name is the case.

    A file is a label map, or, of a volume, 4-D masks (X, Y, Z, C) of classes that may overlap, channel c of label id
    c + 1. A case may also be a folder `<name>/` with one mask a class (`io.write_separate_masks`); classes are
    matched by name.

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
    pictures = [file for file in files if any(map(is_image2d, list_images([file])))]
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
