"""Layers as what a bundle reads, and its labels as what napari shows."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from monai_unetfamily.io import Image, Voxels, require_one_grid, usable
from napari_plugin.layers.geometry import grid_of, orientation_of, source_metadata

if TYPE_CHECKING:
    from napari import layers


def to_image(images: Sequence["layers.Image"], *, nan: str = "refuse") -> Image:
    """Return layers as one image, channel by channel, in their file's order: what `read_study` reads of the same file.

    A layer of 3 axes is one channel, a fourth (the first that is shown) counts channels; layers of 2 axes are pictures.

    Args:
        images: one, or several on one grid.
        nan: as `read_study` takes it.

    Raises:
        ValueError: none; volumes beside pictures; other numbers of axes, several resolutions, colours that are not RGB;
            channels on different grids; what `io.usable` refuses.

    >>> from napari.layers import Image as Layer
    >>> image = to_image([Layer(np.arange(24, dtype=np.int16).reshape(2, 3, 4))])
    >>> image.voxels.shape, image.voxels.dtype.name, image.grid.shape
    ((1, 4, 3, 2), 'float32', (4, 3, 2))
    """
    if not images:
        raise ValueError("got no image layer; one or more are needed, open an image")
    for layer in images:
        _require_kind(layer, images[0])
    image = _picture(images) if images[0].ndim == 2 else _volume(images)
    return usable(image, ", ".join(layer.name for layer in images), nan=nan)


def labels_layer_data(labels: NDArray[Any], like: "layers.Layer") -> tuple[NDArray[Any], dict[str, Any]]:
    """Return labels, in the file's order, as a view for `viewer.add_labels`, and the keywords that lay it on `like`.

    What is written to `labels` later is shown after `layer.refresh()`.

    Args:
        labels: ids (X, Y, Z), or (rows, columns) of a picture.
        like: the layer of the image they are of, or of other labels of it.
    """
    shown = labels if labels.ndim == 2 else grid_of(like).reorientation.view(labels)
    known = source_metadata(like) or {}
    metadata = {"affine": known.get("affine"), "header": known.get("header"), "path": None, "notes": ()}
    metadata["image"] = like.metadata.get("image") or like.metadata.get("path")
    metadata["kind"] = "picture" if shown.ndim == 2 else "volume"
    if not known and shown.ndim == 3:
        metadata["orientation"] = orientation_of(like)
    return shown, {**_place(like, shown.ndim), "metadata": metadata}


def time_point(layer: "layers.Image", index: int) -> tuple[Any, dict[str, Any]]:
    """Return the volume of one time point of a 4-D layer, and the keywords of `viewer.add_image` that lay it there.

    The command line cannot read one time point of a file, so that the volume has no `path`.
    """
    metadata = {**layer.metadata, "path": None}
    limits = {"colormap": layer.colormap.name, "contrast_limits": layer.contrast_limits}
    return layer.data[index], {**_place(layer, 3), **limits, "name": f"{layer.name} t{index}", "metadata": metadata}


def _place(like: "layers.Layer", axes: int) -> dict[str, Any]:
    """The keywords of a layer that lay it on the last axes of another one."""
    return {
        "scale": like.scale[-axes:],
        "translate": like.translate[-axes:],
        "rotate": like.rotate[-axes:, -axes:],
        "affine": like.affine.affine_matrix[-axes - 1 :, -axes - 1 :],
        "units": like.units[-axes:],
        "axis_labels": like.axis_labels[-axes:],
    }


def _require_kind(layer: "layers.Image", first: "layers.Image") -> None:
    got = "several resolutions" if layer.multiscale else f"{layer.ndim} axes{' of colours' if layer.rgb else ''}"
    if layer.multiscale or not (layer.ndim == 2 or (layer.ndim in (3, 4) and not layer.rgb)):
        raise ValueError(f"{layer.name}: got {got}; 2 axes, or 3 and 4 without colours, are allowed, take a part of it")
    if (layer.ndim == 2) != (first.ndim == 2):
        raise ValueError(f"{layer.name}: got {got}, {first.name} has {first.ndim}; volumes or pictures, choose either")


def _volume(images: Sequence["layers.Image"]) -> Image:
    grids = [grid_of(layer) for layer in images]
    require_one_grid([grid.image for grid in grids], [layer.name for layer in images])
    stored = [grid.reorientation.undo(np.asarray(layer.data)) for layer, grid in zip(images, grids, strict=True)]
    parts = [part[None] if part.ndim == 3 else np.moveaxis(part, 3, 0) for part in stored]
    return Image(_joined(parts), grids[0].image, (*images[0].metadata.get("notes", ()), *grids[0].notes))


def _picture(images: Sequence["layers.Image"]) -> Image:
    parts = [np.moveaxis(np.atleast_3d(np.asarray(layer.data)), -1, 0) for layer in images]
    for part, layer in zip(parts, images, strict=True):
        if layer.rgb and len(part) != 3:
            raise ValueError(f"{layer.name}: got colours with alpha; RGB alone is allowed, save it without")
        if part.shape[1:] != parts[0].shape[1:]:
            got = f"got {part.shape[1:]} pixels, {images[0].name} has {parts[0].shape[1:]}"
            raise ValueError(f"{layer.name}: {got}; the channels of one picture need one size, export them again")
    return Image(_joined(parts), None)


def _joined(parts: Sequence[NDArray[Any]]) -> Voxels:
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite and is refused
        floats = [part.astype(np.float32, copy=False) for part in parts]
    return floats[0] if len(floats) == 1 else np.concatenate(floats)
