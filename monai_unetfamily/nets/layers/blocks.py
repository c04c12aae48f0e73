"""The pieces that every member is built of; the only file that asks "2-D or 3-D?".

A grid is coarsened by max pooling that floors, and refined towards a *target's size*, never by a factor, so that
any size works: odd, anisotropic, different per axis.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import pairwise
from math import prod
from typing import Any, cast

import torch
from monai.networks.layers.factories import Conv, Pool
from monai.networks.layers.utils import get_act_layer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint

from monai_unetfamily.nets.layers.convolution import (
    ConvLayer,
    Head2d,
    Head3d,
    shapes_are_symbols,
    small_grids_in_float32,
)
from monai_unetfamily.nets.layers.upsampling import Upsampled

Layer = str | tuple[str, dict[str, Any]] | None
PerStage = int | Sequence[int | Sequence[int]]
Axes = tuple[int, ...]

SPATIAL_DIMS = (2, 3)


class Block(nn.Module):
    """What runs `compute`; with `use_checkpoint`, training computes it twice instead of keeping what lies inside.

    Activation checkpointing (Chen et al. 2016, arXiv 1604.06174): the same gradients, less memory, about a third more
    time. Running statistics of a norm are moved by the first pass alone.
    """

    def __init__(self, use_checkpoint: bool = False) -> None:
        super().__init__()
        self.use_checkpoint = use_checkpoint

    def forward(self, *inputs: Any) -> Tensor:
        """Compute the block's output."""
        if not (self.use_checkpoint and self.training and torch.is_grad_enabled()):
            return self._compute(*inputs)
        return cast(Tensor, checkpoint(self._compute, *inputs, use_reentrant=False, context_fn=partial(_twice, self)))

    def _compute(self, *inputs: Any) -> Tensor:
        with small_grids_in_float32():
            return self.compute(*inputs)

    def compute(self, *inputs: Any) -> Tensor:
        """What a block does."""
        raise NotImplementedError


class ConvBlock(Block):
    """A stage's block H([a, b, ...]): concatenate, then `convolutions` times (convolution, norm, dropout, activation).

    Convolutions are zero padded, so that the grid stays.

    >>> a, b = torch.zeros(1, 3, 7, 5), torch.zeros(1, 2, 7, 5)
    >>> ConvBlock(2, 5, 8, kernel_size=(3, 3), norm="batch")(a, b).shape
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
        last_act: bool = True,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__(use_checkpoint)
        widths = pairwise([in_channels] + [out_channels] * convolutions)
        acts = [act] * (convolutions - 1) + [act if last_act else None]
        layers: dict[str, Any] = {"kernel_size": kernel_size, "norm": norm, "dropout": dropout or None}
        self.convs = _Layers(
            *(ConvLayer(spatial_dims, a, b, act=f, **layers) for (a, b), f in zip(widths, acts, strict=True))
        )

    def compute(self, *maps: Tensor | Upsampled) -> Tensor:
        """Map (N, C_k, *grid) for each k to (N, out_channels, *grid); the C_k add up to in_channels."""
        return cast(Tensor, self.convs(*maps))


class _Layers(nn.Sequential):
    """Layers one after the other, of which the first takes several maps."""

    def forward(self, *maps: Tensor | Upsampled) -> Tensor:
        first, *others = self
        y = first(*maps)
        for layer in others:
            y = layer(y)
        return cast(Tensor, y)


class ResidualBlock(ConvBlock):
    """A stage's block as a residual unit: act(F(x) + S(x)), the last convolution of F without activation.

    He et al.: "Deep Residual Learning for Image Recognition", 2016 (arXiv 1512.03385), eq. 1 and 2. S is the identity,
    or a 1x1 convolution with norm where the width changes.

    >>> ResidualBlock(3, 2, 4, norm="instance")(torch.zeros(1, 2, 4, 4, 4)).shape
    torch.Size([1, 4, 4, 4, 4])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        act: Layer = "relu",
        norm: Layer = None,
        **layers: Any,
    ) -> None:
        super().__init__(spatial_dims, in_channels, out_channels, act=act, norm=norm, last_act=False, **layers)
        self.shortcut = (
            nn.Identity()
            if in_channels == out_channels
            else ConvLayer(spatial_dims, in_channels, out_channels, kernel_size=1, act=None, norm=norm)
        )
        self.act = nn.Identity() if act is None else get_act_layer(act)

    def compute(self, *maps: Tensor | Upsampled) -> Tensor:
        """As ConvBlock's."""
        return cast(Tensor, self.act(super().compute(*maps) + self.shortcut(*maps)))


BLOCKS: dict[str, type[ConvBlock]] = {"plain": ConvBlock, "residual": ResidualBlock}


class UpsampleConv(Block):
    """Linear interpolation to a target's size, then one zero-padded convolution, norm and activation.

    Computed on the coarse grid where that is cheaper: see `upsampling`.

    `forward(x, size)` maps (N, in_channels, *coarse) to (N, out_channels, *size); `align_corners=False`. `layers` are
    the options of `ConvBlock`.

    >>> UpsampleConv(3, 8, 4)(torch.zeros(1, 8, 2, 3, 2), (5, 6, 4)).shape
    torch.Size([1, 4, 5, 6, 4])
    """

    def __init__(
        self, spatial_dims: int, in_channels: int, out_channels: int, *, use_checkpoint: bool = False, **layers: Any
    ) -> None:
        super().__init__(use_checkpoint)
        self.conv = ConvBlock(spatial_dims, in_channels, out_channels, convolutions=1, **layers)

    def compute(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """Interpolate x to `size` (voxels per axis), then convolve."""
        return cast(Tensor, self.conv(Upsampled(x, size)))


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
        return fit(self.conv(x), size)


class LinearUp(nn.Module):
    """Linear interpolation to the target's size; channels stay as they are. The block that follows computes it."""

    def forward(self, x: Tensor, size: Sequence[int]) -> Upsampled:
        """Map (N, C, *coarse) to (N, C, *size), when it is read."""
        return Upsampled(x, size)


def upsampler(spatial_dims: int, in_channels: int, out_channels: int, stride: Axes, upsample: str) -> nn.Module:
    """The U of an upsampling step: "transposed" (to out_channels) or "linear" (in_channels stay)."""
    if upsample == "linear":
        return LinearUp()
    return TransposedUp(spatial_dims, in_channels, out_channels, stride=stride)


def fit(x: Tensor, size: Sequence[int]) -> Tensor:
    """Cut (N, C, *spatial) at the far edges to `size` voxels per axis, or repeat the last plane until it has them.

    >>> fit(torch.arange(6.0).reshape(1, 1, 2, 3), (3, 2))[0, 0].tolist()
    [[0.0, 1.0], [3.0, 4.0], [3.0, 4.0]]
    """
    for axis, n in enumerate(size, start=2):
        if shapes_are_symbols() or n != x.shape[axis]:
            planes = torch.arange(n, device=x.device).clamp(max=x.shape[axis] - 1)
            x = x.index_select(axis, planes)
    return x


def max_pool(spatial_dims: int, stride: Axes) -> nn.Module:
    """Max pooling by `stride` per axis, flooring; nothing at all where every stride is 1."""
    if prod(stride) == 1:
        return nn.Identity()
    return cast(nn.Module, Pool[Pool.MAX, spatial_dims](kernel_size=stride, stride=stride))


def conv_head(spatial_dims: int, in_channels: int, out_channels: int, kernel_size: int) -> nn.Module:
    """Logits from features: one zero-padded convolution with bias."""
    head = Head2d if spatial_dims == 2 else Head3d
    return head(in_channels, out_channels, kernel_size, padding=kernel_size // 2)


def max_over_space(x: Tensor) -> Tensor:
    """Global max pooling: (N, C, *spatial) to (N, C)."""
    return torch.amax(x, dim=tuple(range(2, x.ndim)))


def _twice(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """The contexts of a block's first pass and of its second."""
    return nullcontext(), _FrozenStatistics(block)


class _FrozenStatistics(AbstractContextManager[None]):
    """Lets norms work as in training, but move nothing that they keep; entered again by each backward pass."""

    def __init__(self, block: nn.Module) -> None:
        self._norms = [m for m in block.modules() if isinstance(m, _NormBase) and m.track_running_stats]

    def __enter__(self) -> None:
        self._before = [(norm.momentum, norm.num_batches_tracked) for norm in self._norms]
        for norm, (_, count) in zip(self._norms, self._before, strict=True):
            norm.momentum, norm.num_batches_tracked = 0.0, None if count is None else count.clone()

    def __exit__(self, *_: object) -> None:
        for norm, (momentum, count) in zip(self._norms, self._before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
