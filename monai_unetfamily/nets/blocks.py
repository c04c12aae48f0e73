"""The pieces that every member is built of; the only file that asks "2-D or 3-D?".

A grid is coarsened by max pooling that floors, and refined towards a *target's size*, never by a factor, so that
any size works: odd, anisotropic, different per axis.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from math import prod
from typing import Any, cast

import torch
from monai.networks.blocks.convolutions import Convolution
from monai.networks.layers.factories import Conv, Pool
from monai.networks.layers.utils import get_act_layer, get_norm_layer
from torch import Tensor, nn
from torch.nn import functional as F

Layer = str | tuple[str, dict[str, Any]] | None
PerStage = int | Sequence[int | Sequence[int]]
Axes = tuple[int, ...]

_LINEAR = {2: "bilinear", 3: "trilinear"}


class ConvBlock(nn.Sequential):
    """A stage's block H: `convolutions` times (convolution, norm, dropout, activation), zero padded.

    >>> ConvBlock(2, 3, 8, kernel_size=(3, 3), norm="batch")(torch.zeros(1, 3, 7, 5)).shape
    torch.Size([1, 8, 7, 5])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: Axes | int = 3,
        convolutions: int = 2,
        act: Layer = "relu",
        norm: Layer = None,
        dropout: float = 0.0,
    ) -> None:
        widths = [in_channels] + [out_channels] * convolutions
        super().__init__(
            *(
                Convolution(spatial_dims, a, b, kernel_size=kernel_size, act=act, norm=norm, dropout=dropout or None)
                for a, b in pairwise(widths)
            )
        )


class UpsampleConv(nn.Module):
    """Linear interpolation to a target's size, then one zero-padded convolution, norm and activation.

    `forward(x, size)` maps (N, in_channels, *coarse) to (N, out_channels, *size); `align_corners=False`. `layers` are
    the options of `ConvBlock`.

    >>> UpsampleConv(3, 8, 4)(torch.zeros(1, 8, 2, 3, 2), (5, 6, 4)).shape
    torch.Size([1, 4, 5, 6, 4])
    """

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, **layers: Any) -> None:
        super().__init__()
        self.conv = ConvBlock(spatial_dims, in_channels, out_channels, convolutions=1, **layers)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """Interpolate x to `size` (voxels per axis), then convolve."""
        return cast(Tensor, self.conv(resize(x, size)))


class TransposedUp(nn.Module):
    """Transposed convolution with kernel = stride, completed at the far edges to the target's size.

    Where flooring lost a remainder (7 -> 3 -> 6), the last plane is repeated, as MONAI's BasicUNet does.

    >>> TransposedUp(2, 8, 4, stride=(2, 2))(torch.zeros(1, 8, 3, 4), (7, 8)).shape
    torch.Size([1, 4, 7, 8])
    """

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, *, stride: Axes) -> None:
        super().__init__()
        self.conv = Conv[Conv.CONVTRANS, spatial_dims](in_channels, out_channels, kernel_size=stride, stride=stride)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """Map (N, in_channels, *coarse) to (N, out_channels, *size)."""
        y = self.conv(x)
        missing = [pad for want, got in zip(size[::-1], y.shape[:1:-1], strict=True) for pad in (0, want - got)]
        return F.pad(y, missing, mode="replicate") if any(missing) else y


class LinearUp(nn.Module):
    """Linear interpolation to the target's size; channels stay as they are."""

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """Map (N, C, *coarse) to (N, C, *size)."""
        return resize(x, size)


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Interpolate (N, C, *spatial) linearly to `size` voxels per axis (`align_corners=False`).

    >>> resize(torch.arange(4.0).reshape(1, 1, 2, 2), (2, 4))[0, 0, 0].tolist()
    [0.0, 0.25, 0.75, 1.0]
    """
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode=_LINEAR[x.ndim - 2], align_corners=False)


def max_pool(spatial_dims: int, stride: Axes) -> nn.Module:
    """Max pooling by `stride` per axis, flooring; nothing at all where every stride is 1."""
    if prod(stride) == 1:
        return nn.Identity()
    return cast(nn.Module, Pool[Pool.MAX, spatial_dims](kernel_size=stride, stride=stride))


def conv_head(spatial_dims: int, in_channels: int, out_channels: int, kernel_size: int) -> nn.Module:
    """Logits from features: one zero-padded convolution with bias."""
    conv = Conv[Conv.CONV, spatial_dims]
    return cast(nn.Module, conv(in_channels, out_channels, kernel_size, padding=kernel_size // 2))


def per_stage(value: PerStage, stages: int, spatial_dims: int, name: str, odd: bool = False) -> list[Axes]:
    """Spell out a number, or one entry a stage (a number or one number an axis), as `stages` tuples.

    >>> per_stage((2, (1, 2, 2)), 2, 3, "strides")
    [(2, 2, 2), (1, 2, 2)]

    Raises:
        ValueError: where the number of stages or axes does not fit, an entry is below 1, or even where it must be odd.
    """
    entries = [value] * stages if isinstance(value, int) else list(value)
    if len(entries) != stages:
        raise ValueError(
            f"{name} has {len(entries)} entries; these features allow {stages}; give one per stage or one number."
        )
    axes = [(e,) * spatial_dims if isinstance(e, int) else tuple(e) for e in entries]
    if any(len(a) != spatial_dims or min(a) < 1 for a in axes):
        raise ValueError(
            f"{name} is {axes}; each entry must be a whole number >= 1, or {spatial_dims} of them (one per axis)."
        )
    if odd and any(n % 2 == 0 for a in axes for n in a):
        raise ValueError(f"{name} is {axes}; only odd sizes keep the grid: use 1, 3, 5, ...")
    return axes


def check_construction(
    spatial_dims: int, in_channels: int, out_channels: int, features: Sequence[int], norm: Layer, act: Layer
) -> None:
    """Hold a network's arguments against what is possible, before any layer is made.

    Raises:
        ValueError: names the argument, what was got and what is allowed.
    """
    if spatial_dims not in _LINEAR:
        raise ValueError(f"spatial_dims is {spatial_dims}; allowed are 2 and 3.")
    for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
        if channels < 1:
            raise ValueError(f"{name} is {channels}; at least 1 is needed.")
    if not features or min(features) < 1:
        raise ValueError(f"features is {tuple(features)}; give one width >= 1 per stage, finest first.")
    _check_layer("norm", norm, partial(get_norm_layer, spatial_dims=spatial_dims, channels=features[0]))
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


def check_input(x: Tensor, in_channels: int, strides: Sequence[Axes], norm: Layer) -> None:
    """Hold (N, C, *spatial) against what the network can take, at its door.

    The deepest grid keeps at least one voxel an axis; instance norm needs two voxels to have a variance.

    Raises:
        ValueError: what was got, the least size, and what to do.
    """
    spatial_dims = len(strides[0]) if strides else x.ndim - 2
    if x.ndim != spatial_dims + 2 or x.shape[1] != in_channels:
        raise ValueError(
            f"input has shape {tuple(x.shape)}; this network takes (N, {in_channels}, "
            f"{spatial_dims} spatial axes): check the image's channels and dimensions."
        )
    least = [prod(s[axis] for s in strides) for axis in range(spatial_dims)]
    size = tuple(x.shape[2:])
    if any(n < m for n, m in zip(size, least, strict=True)):
        raise ValueError(
            f"input has {size} voxels; the deepest grid needs at least {tuple(least)}: pad the image, take a "
            "larger patch, or use fewer stages or smaller strides."
        )
    if _is_instance(norm) and prod(n // m for n, m in zip(size, least, strict=True)) == 1:
        raise ValueError(
            f"input has {size} voxels, which leaves one voxel on the deepest grid, and instance norm needs two: "
            f"take one axis to at least {2 * max(least)} voxels, or use another norm or fewer stages."
        )


def _is_instance(norm: Layer) -> bool:
    name = norm[0] if isinstance(norm, tuple | list) else norm
    return name is not None and name.lower().startswith("instance")


def max_over_space(x: Tensor) -> Tensor:
    """Global max pooling: (N, C, *spatial) to (N, C)."""
    return torch.amax(x, dim=tuple(range(2, x.ndim)))
