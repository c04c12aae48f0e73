"""Layers saved as NIfTI on the grid of their file, voxel by voxel; labels with their names and colours."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from nibabel.nifti1 import Nifti1Image
from nibabel.nifti2 import Nifti2Header, Nifti2Image
from numpy.typing import NDArray

from monai_unetfamily.io import save_image, write_label_image2d, write_labels
from napari_plugin.layers import Grid, grid_of, layer_table
from napari_plugin.qt import plain

if TYPE_CHECKING:
    from napari import layers

_EXACT = {"bool": np.uint8, "float16": np.float32}  # what NIfTI has no type for -> one that holds its values


def write_labels_layer(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """napari's request to save a Labels layer; notes are shown."""
    from napari.layers import Labels

    return _saved(save_labels, Labels(data, **attributes), path)


def write_image_layer(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """napari's request to save an Image layer; notes are shown."""
    from napari.layers import Image

    return _saved(save_values, Image(data, **attributes), path)


def save_labels(layer: "layers.Labels", path: Path) -> tuple[str, ...]:
    """Save labels on their grid (`geometry.grid_of`), with names and colours; return what had to be assumed.

    Args:
        layer: of 2 to 4 axes.
        path: `.nii.gz` or `.nii`; of a picture also `.png`, which holds ids alone.

    Raises:
        ValueError: several resolutions, negative ids, another file name, or that of an image; what `grid_of` refuses.
        OSError: the file cannot be written; what was there before is untouched.
    """
    _require_free(layer, path)
    if path.suffix.lower() == ".png":
        write_label_image2d(_values(layer), path)
        return ()
    grid = grid_of(layer)
    labels, like = _on_grid(layer, grid)
    write_labels(labels, like, path, layer_table(layer, _present(labels)))
    return grid.notes


def save_values(layer: "layers.Image", path: Path) -> tuple[str, ...]:
    """Save an image's values, in their type, on its grid (`geometry.grid_of`); return what had to be assumed.

    Args:
        layer: of 2 to 4 axes.
        path: `.nii.gz` or `.nii`.

    Raises:
        ValueError: several resolutions, colours, another file name, or that of an image; what `grid_of` refuses.
        OSError: the file cannot be written; what was there before is untouched.
    """
    _require_free(layer, path)
    if layer.rgb:
        raise ValueError(f"{path}: got colours; one value a voxel is allowed, save a channel, or a PNG")
    grid = grid_of(layer)
    values, like = _on_grid(layer, grid)
    values = values.astype(_EXACT.get(values.dtype.name, values.dtype), copy=False)
    header = like.header.copy()
    header.extensions.clear()  # they tell of the source, or of the patient
    header.set_data_dtype(values.dtype)
    save_image(type(like)(values, header.get_best_affine(), header), path)
    return grid.notes


def _saved(save: Callable[[Any, Path], tuple[str, ...]], layer: "layers.Layer", path: str) -> list[str]:
    from napari.utils.notifications import show_warning

    try:
        notes = save(layer, Path(path))
    except ValueError as error:  # napari takes it for a lack of writers, and its text would be lost
        raise RuntimeError(str(error)) from error
    if notes:
        show_warning(plain(f"{path} is saved. {'; '.join(notes)}"))
    return [path]


def _on_grid(layer: "layers.Layer", grid: Grid) -> tuple[NDArray[Any], Nifti1Image]:
    """The layer's values in its file's order, and an image of their shape for the header."""
    stored = grid.reorientation.undo(_values(layer))
    shape = stored.shape if stored.ndim == 4 else grid.image.shape
    header = grid.image.header
    single = Nifti2Image if isinstance(header, Nifti2Header) else Nifti1Image
    like = single(np.broadcast_to(np.uint8(0), shape), header.get_best_affine(), header)
    return stored.reshape(shape), like


def _values(layer: "layers.Layer") -> NDArray[Any]:
    if layer.multiscale:
        raise ValueError(f"{layer.name}: got several resolutions; one is allowed, take the finest")
    return np.asarray(layer.data)


def _present(labels: NDArray[Any]) -> set[int]:
    return {int(label) for part in labels for label in np.unique(part)}


def _require_free(layer: "layers.Layer", path: Path) -> None:
    """Refuse to write over an image."""
    if path.exists() and any(source.exists() and path.samefile(source) for source in _images(layer)):
        raise ValueError(f"{path}: holds an image that is open here; its file is never replaced, choose another name")


def _images(layer: "layers.Layer") -> Iterator[Path]:
    import napari
    from napari.layers import Image

    viewer = napari.current_viewer()
    opened = [other for other in (layer, *(viewer.layers if viewer else ())) if isinstance(other, Image)]
    paths = [path for other in opened for path in (other.metadata.get("path"), other.source.path)]
    yield from (Path(path) for path in (*paths, layer.metadata.get("image")) if path)
