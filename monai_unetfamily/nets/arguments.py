"""Validate the arguments and inputs of networks."""

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Any

from monai.networks.layers.utils import get_act_layer, get_norm_layer
from torch import Tensor

from monai_unetfamily.nets.layers import SPATIAL_DIMS, Axes, Layer, PerStage, shapes_are_symbols


def per_stage(value: PerStage, stages: int, spatial_dims: int, name: str, odd: bool = False) -> list[Axes]:
    """Spell out a number, or one entry a stage (a number or one number an axis), as `stages` tuples.

    >>> per_stage((2, (1, 2, 2)), 2, 3, "strides")
    [(2, 2, 2), (1, 2, 2)]

    Raises:
        ValueError: where the number of stages or axes does not fit, an entry is below 1, or even where it must be odd.
    """
    if isinstance(value, str | float):
        raise ValueError(f"{name} is {value!r}; give a whole number, or one entry per stage.")
    entries: list[Any] = [value] * stages if isinstance(value, int) else list(value)
    if len(entries) != stages:
        raise ValueError(
            f"{name} has {len(entries)} entries; these features allow {stages}; give one per stage or one number."
        )
    axes = [tuple(e) if isinstance(e, list | tuple) else (e,) * spatial_dims for e in entries]
    if any(len(a) != spatial_dims or not all(map(_counts, a)) for a in axes):
        raise ValueError(
            f"{name} is {axes}; each entry must be a whole number >= 1, or {spatial_dims} of them (one per axis)."
        )
    if odd and any(n % 2 == 0 for a in axes for n in a):
        raise ValueError(f"{name} is {axes}; only odd sizes keep the grid: use 1, 3, 5, ...")
    return axes


def per_stage_count(value: int | Sequence[int], stages: int, name: str) -> list[int]:
    """Spell out a number, or one a stage.

    >>> per_stage_count(2, 3, "convolutions")
    [2, 2, 2]

    Raises:
        ValueError: where the number of stages does not fit, or an entry is below 1.
    """
    return [count for (count,) in per_stage(value, stages, 1, name)]


def _counts(value: object) -> bool:
    return isinstance(value, int) and value >= 1


def check_choice(name: str, value: object, allowed: Sequence[object]) -> None:
    """Refuse what is not among the values that an argument allows.

    >>> check_choice("upsample", "cubic", ("transposed", "linear"))
    Traceback (most recent call last):
    ValueError: upsample is 'cubic'; allowed are 'transposed', 'linear'.
    """
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; allowed are {', '.join(map(repr, allowed))}.")


def check_construction(
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    features: Sequence[int],
    norm: Layer,
    act: Layer,
    further_widths: Sequence[int] = (),
) -> None:
    """Hold a network's arguments against what is possible, before any layer is made.

    The norm must take every width: those of `features`, and `further_widths` of a network's own.

    Raises:
        ValueError: names the argument, what was got and what is allowed.
    """
    if spatial_dims not in SPATIAL_DIMS:
        raise ValueError(f"spatial_dims is {spatial_dims}; allowed are 2 and 3.")
    for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
        if not _counts(channels):
            raise ValueError(f"{name} is {channels}; a whole number of at least 1 is needed.")
    if isinstance(features, int | str) or not features or not all(map(_counts, features)):
        raise ValueError(f"features is {features}; give one width >= 1 per stage, finest first.")
    for width in dict.fromkeys([*features, *further_widths]):
        _check_layer("norm", norm, partial(get_norm_layer, spatial_dims=spatial_dims, channels=width))
    _check_layer("act", act, get_act_layer)


def _check_layer(kind: str, layer: Layer, build: Callable[[Any], Any]) -> None:
    if layer is None:
        return
    try:
        build(layer)
    except (ValueError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{kind} is {layer!r}; allowed is a name, or (name, arguments), of MONAI's: {reason}"
        ) from error


def check_shape(x: Tensor, spatial_dims: int, in_channels: int) -> None:
    """Refuse an input of other channels or axes than (N, in_channels, *spatial).

    Raises:
        ValueError: what was got, and what the network takes.
    """
    if x.ndim != spatial_dims + 2 or x.shape[1] != in_channels:
        raise ValueError(
            f"input has shape {tuple(x.shape)}; this network takes (N, {in_channels}, "
            f"{spatial_dims} spatial axes): check the image's channels and dimensions."
        )


def check_input(
    x: Tensor, spatial_dims: int, in_channels: int, strides: Sequence[Axes], norm: Layer, *, training: bool
) -> None:
    """Hold (N, C, *spatial) against what the network can take, at its door.

    The deepest grid keeps at least one voxel an axis; instance norm needs two voxels to have a variance, batch norm
    while it trains two in the whole batch. While a network is traced or exported nothing is held: the exported program
    states its own limits.

    Raises:
        ValueError: what was got, the least size, and what to do.
    """
    check_shape(x, spatial_dims, in_channels)
    if shapes_are_symbols():
        return
    least = [prod(s[axis] for s in strides) for axis in range(spatial_dims)]
    size = tuple(x.shape[2:])
    if any(n < m for n, m in zip(size, least, strict=True)):
        raise ValueError(
            f"input has {size} voxels; the deepest grid needs at least {tuple(least)}: pad the image, take a "
            "larger patch, or use fewer stages or smaller strides."
        )
    voxels = prod(n // m for n, m in zip(size, least, strict=True))
    if (_is(norm, "instance") and voxels == 1) or (_is(norm, "batch") and training and voxels * x.shape[0] == 1):
        raise ValueError(
            f"input has {size} voxels, which leaves one voxel on the deepest grid, and {_name(norm)} norm needs two: "
            f"take one axis to at least {2 * max(least)} voxels, or use another norm or fewer stages."
        )


def _is(norm: Layer, kind: str) -> bool:
    return _name(norm).startswith(kind)


def _name(norm: Layer) -> str:
    return str(norm[0] if isinstance(norm, tuple | list) else norm).lower()
