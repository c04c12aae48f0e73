"""Whether a bundle can take the layers that are chosen for it: what is wrong, and what only looks wrong."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from napari.layers import Image
from numpy.typing import NDArray

from monai_unetfamily.bundles.card import Card

_AIR = -200  # HU: every CT of a body has air around or in it, near -1000
_NEVER_MR = -100  # magnitudes are not negative; a little is left to filters and resampling
_SLICES = (0.25, 0.5, 0.75)  # of a volume's first axis: where values are looked at
_FINE = 128  # values along each axis of a slice that are looked at, about


@dataclass(frozen=True)
class Verdict:
    """What is to be said of a choice of layers.

    Attributes:
        problem: why the bundle cannot take them; empty where it can.
        warning: what looks wrong, and may be right.
        asks_spacing: whether the voxels' size has to be asked for.
        asks_time: whether one time point of a 4-D layer has to be taken.
    """

    problem: str = ""
    warning: str = ""
    asks_spacing: bool = False
    asks_time: bool = False


def check(card: Card, layers: Sequence[Image | None]) -> Verdict:
    """Hold the layers, one a channel or a 4-D one for all, against what a bundle takes."""
    chosen = [layer for layer in layers if layer is not None]
    if not chosen:
        return Verdict("No image is chosen: open one (File > Open, or drop a file on the window).")
    if problem := _kind_problem(card, chosen):
        return Verdict(problem)
    if len(card.channels) == 1 and channels_of(chosen[0]) > 1 and chosen[0].ndim == 4:
        got = f"“{chosen[0].name}” is 4-D, {channels_of(chosen[0])} volumes over time or channels"
        fix = "use the button below to take the current one"
        return Verdict(f"{got}, and {card.name} takes a single volume: {fix}.", asks_time=True)
    if problem := _channel_problem(card, layers) or _grid_problem(chosen):
        return Verdict(problem)
    if card.pictures:
        return Verdict()
    if any(map(lacks_spacing, chosen)):
        return Verdict(f"“{chosen[0].name}” has no voxel size: state it below, in mm.", asks_spacing=True)
    return Verdict(warning=doubt(card.modality, sample(chosen[0])))


def channels_of(layer: Image) -> int:
    """How many channels a layer holds: those of a colour picture, or of the first axis beyond the spatial ones.

    >>> channels_of(Image(np.zeros((4, 5, 3)), rgb=True)), channels_of(Image(np.zeros((2, 4, 5, 3))))
    (3, 2)
    """
    if layer.rgb:
        return int(layer.data.shape[-1])
    return int(layer.data.shape[0]) if layer.ndim == 4 else 1


def lacks_spacing(layer: Image) -> bool:
    """Whether nothing says how large the voxels are: no header, no unit of length, and a scale of one.

    >>> lacks_spacing(Image(np.zeros((4, 5, 3)))), lacks_spacing(Image(np.zeros((4, 5, 3)), scale=(5, 1, 1)))
    (True, False)
    """
    lengths = any(unit.is_compatible_with("mm") for unit in layer.units[-3:])
    return "affine" not in layer.metadata and not lengths and bool(np.allclose(layer.scale, 1))


def sample(layer: Image) -> NDArray[np.float64]:
    """Some values of a layer, of a few slices: cheap, whatever its size."""
    data = layer.data[0] if layer.ndim == 4 else layer.data
    if layer.ndim == 2:
        return np.asarray(data, np.float64)
    fine = tuple(slice(None, None, max(1, size // _FINE)) for size in data.shape[1:])
    return np.stack([np.asarray(data[int(part * (len(data) - 1))][fine], np.float64) for part in _SLICES])


def doubt(modality: str, values: NDArray[np.float64]) -> str:
    """What speaks against an image being of a modality; empty where nothing does.

    >>> doubt("CT", np.array([0.0, 255.0]))[:60]
    'Values run from 0 to 255: CT in Hounsfield units has air nea'
    >>> doubt("MR", np.array([0.0, 255.0]))
    ''
    """
    low, high = float(np.nanmin(values, initial=math.inf)), float(np.nanmax(values, initial=-math.inf))
    if low > high:
        return "None of the values that were looked at is a number."
    got = f"Values run from {low:g} to {high:g}:"
    if modality == "CT" and low > _AIR:
        return f"{got} CT in Hounsfield units has air near -1000. Is this CT, with its rescale slope applied?"
    if modality == "MR" and low < _NEVER_MR:
        return f"{got} that looks like CT, and the bundle was trained on MR."
    return ""


def _kind_problem(card: Card, layers: Sequence[Image]) -> str:
    layer = layers[0]
    flat = layer.ndim == 2
    if layer.multiscale:
        return f"“{layer.name}” is a pyramid of several resolutions: open the full one."
    if flat and card.axes == 3:
        return f"“{layer.name}” is a 2-D layer, and {card.name} takes volumes: open the whole volume."
    if not flat and card.axes == 2:
        return f"“{layer.name}” is a volume, and {card.name} takes 2-D pictures: choose a bundle for volumes."
    if layer.ndim > 4:
        return f"“{layer.name}” has {layer.ndim} axes: 3, and a fourth of channels, are allowed; take a part of it."
    if layer.rgb and not flat:
        return f"“{layer.name}” is a stack of colour pictures, and {card.name} takes volumes of numbers."
    return ""


def _channel_problem(card: Card, layers: Sequence[Image | None]) -> str:
    wanted, names = len(card.channels), ", ".join(card.channels)
    first = layers[0]
    if first is not None and channels_of(first) == wanted:
        return ""
    chosen = [layer for layer in layers if layer is not None]
    several = next((layer for layer in chosen if channels_of(layer) > 1), None)
    if several is not None:
        got = f"“{several.name}” has {channels_of(several)} channels"
        return (
            f"{got}, and {card.name} takes {wanted} ({names}): choose one that has, or split it (Layer > Split Stack)."
        )
    if len(chosen) < wanted:
        return f"{card.name} takes {wanted} channels ({names}): choose a layer for each."
    if len(set(map(id, chosen))) < len(chosen):
        return f"One layer stands for two channels: {card.name} takes {wanted} different ones ({names})."
    return ""


def _grid_problem(layers: Sequence[Image]) -> str:
    first = layers[0]
    for other in layers[1:]:
        if other.data.shape != first.data.shape:
            got = f"“{other.name}” has {other.data.shape} voxels, “{first.name}” {first.data.shape}"
            return f"{got}: the channels of one image need one grid; resample them to it first."
        where, there = _affine(other), _affine(first)
        if where.shape != there.shape or not np.allclose(where, there, atol=1e-3):
            return f"“{other.name}” lies elsewhere than “{first.name}”: the channels of one image need one grid."
    return ""


def _affine(layer: Image) -> NDArray[np.float64]:
    """Where a layer's voxels lie: by the affine of its file, or by scale and translation."""
    return np.asarray(layer.metadata.get("affine", [layer.scale, layer.translate]), np.float64)
