"""One side of a comparison: a label map, a 4-D file of masks, or a folder with one mask a class."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from monai_unetfamily.evaluation.cases import bounding_boxes
from monai_unetfamily.volumes.masks import file_names, mask_of, read_channel_names, require_channel_names
from monai_unetfamily.volumes.nifti import GRID_TOLERANCE, Labels, grid_shift, open_volume
from monai_unetfamily.volumes.sources import (
    Affine,
    holds_sources,
    is_itk,
    is_picture,
    list_sources,
    read_label_map,
    stem,
)

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
        FileNotFoundError, ValueError: what `list_sources` raises; files and folders of masks side by side.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     for case in ("a", "b"):
    ...         (Path(folder) / case).mkdir()
    ...         (Path(folder) / case / "liver.nii.gz").touch()
    ...     sorted(list_sides(Path(folder)))
    ['a', 'b']
    """
    if isinstance(source, Path) and source.is_dir():
        folders = sorted(path for path in source.iterdir() if path.is_dir() and holds_sources(path))
        if folders and holds_sources(source):
            raise ValueError(
                f"{source}: holds label maps, and folders of them ({folders[0].name}) too; one of the two is allowed,"
                " move the others out"
            )
        if folders:
            return {folder.name: folder for folder in folders}
    return {stem(file): file for file in list_sources([source] if isinstance(source, Path) else source)}


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
    named = _header_names(path for path in paths if not (path.is_dir() or is_picture(path) or is_itk(path)))
    folders = [path for path in paths if path.is_dir()]
    if not folders:
        sides = (read_labels(path) for path in paths)
        found = {label for labels, affine in sides for label in labels_in(labels, len(affine) - 1)} | set(named)
        if not found:
            raise ValueError(f"got only label 0 in {len(paths)} files; another is needed: check the folders")
        return {label: named.get(label, str(label)) for label in sorted(found)}
    if len(folders) == len(paths):
        return dict(enumerate(sorted({stem(file) for folder in folders for file in list_sources([folder])}), start=1))
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
    files = {stem(file): file for file in list_sources([folder])}
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
