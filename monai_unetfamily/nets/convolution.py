"""One layer, (convolution, norm, dropout, activation), of one or several maps: MONAI's, at a lower price.

The numbers are those of concatenating the maps, interpolating first those that are to be upsampled, and of torch's
modules one after the other; what changes is the order of the work (see `ConvLayer`). Exporters and tracers are given
that plain form.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, cast

import torch
from monai.networks.blocks.convolutions import Convolution
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from monai_unetfamily.nets.norms import fold_batch_norm, instance_norm
from monai_unetfamily.nets.upsampling import Upsampled, coarse_convolution, coarse_is_cheaper

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


class ConvLayer(Convolution):
    """MONAI's `Convolution` of [a, b, ...] along channels, with its arguments, weights and names.

    - A convolution of a concatenation is the sum of the convolutions of its parts, so that an `Upsampled` part is
      convolved on its coarse grid (`upsampling`) where that is cheaper.
    - In `eval()`, batch norm is a factor and a term of each output channel: they go into the kernel and the bias.
    - Instance norm on a CPU reads channels-last maps, and overwrites them where no gradient is kept (`norms`).
    - Maps lie with channels last on a CPU, where convolution and pooling are faster then.
    - Activations that can, work in place.

    >>> layer = ConvLayer(2, 5, 8, act="relu", norm="batch")
    >>> layer(torch.zeros(1, 3, 7, 5), Upsampled(torch.zeros(1, 2, 3, 2), (7, 5))).shape
    torch.Size([1, 8, 7, 5])
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for module in self.modules():
            if isinstance(module, nn.ReLU | nn.LeakyReLU):  # their gradients hang on what they return alone
                module.inplace = True

    def forward(self, *maps: Tensor | Upsampled) -> Tensor:
        """Map (N, C_k, *grid) for each k to (N, out_channels, *grid); the C_k add up to in_channels."""
        if shapes_are_symbols():
            return cast(Tensor, super().forward(_join(maps)))
        folded = self._folded_norm()
        weight, bias = self.conv.weight, self.conv.bias
        if folded is not None:
            weight, bias = fold_batch_norm(folded, weight, bias)
        y = self._convolve(maps, weight, bias)
        for layer in getattr(self, "adn", ()):
            if layer is not folded:
                y = _apply(layer, y)
        return y

    def _folded_norm(self) -> _BatchNorm | None:
        """The batch norm that uses what it has learned."""
        norm = getattr(getattr(self, "adn", None), "N", None)
        return norm if isinstance(norm, _BatchNorm) and norm.track_running_stats and not norm.training else None

    def _convolve(self, maps: Sequence[Tensor | Upsampled], weight: Tensor, bias: Tensor | None) -> Tensor:
        """The sum over the coarse maps and the others together, which are concatenated."""
        kernels = [weight[:, a:b] for a, b in pairwise(accumulate(map(_width, maps), initial=0))]
        cheap = [isinstance(x, Upsampled) and coarse_is_cheaper(x.coarse, k, x.size) for x, k in zip(maps, kernels)]
        coarse = [coarse_convolution(x.coarse, k, x.size) for x, k, c in zip(maps, kernels, cheap) if c]
        fine = [(x, k) for x, k, c in zip(maps, kernels, cheap) if not c]
        if fine:
            kernel = weight if not coarse else torch.cat([k for _, k in fine], dim=1)
            y = self.conv._conv_forward(lay_out(_join([x for x, _ in fine])), kernel, bias)
        else:
            y, *coarse = coarse
            y = y if bias is None else y.add_(bias.view(-1, *[1] * (y.ndim - 2)))
        for part in coarse:
            y = y.add_(part)
        return y


def _width(x: Tensor | Upsampled) -> int:
    return (x if isinstance(x, Tensor) else x.coarse).shape[1]


def _join(maps: Sequence[Tensor | Upsampled]) -> Tensor:
    fine = [x if isinstance(x, Tensor) else x.interpolated() for x in maps]
    return fine[0] if len(fine) == 1 else torch.cat(fine, dim=1)


def _apply(layer: nn.Module, y: Tensor) -> Tensor:
    plain = y.device.type != "cpu" or y.dtype not in (torch.float32, torch.float64)
    if plain or not isinstance(layer, _InstanceNorm) or layer.track_running_stats:
        return cast(Tensor, layer(y))
    return instance_norm(y, layer.weight, layer.bias, layer.eps)


def lay_out(x: Tensor) -> Tensor:
    """Lay (N, C, *spatial) with its channels last on a CPU; nothing changes elsewhere."""
    return x if x.is_cuda else x.contiguous(memory_format=_CHANNELS_LAST[x.ndim])


def shapes_are_symbols() -> bool:
    """Whether a network is being traced or exported, so that no answer may hang on the sizes of this input."""
    return torch.jit.is_tracing() or torch.compiler.is_exporting()
