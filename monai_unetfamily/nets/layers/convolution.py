"""Convolution layers: (convolution, norm, dropout, activation) of one or several maps, with exact fast forms."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import reduce
from itertools import accumulate, pairwise
from math import prod
from typing import Any, cast

import torch
from monai.networks.blocks.convolutions import Convolution
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.modules.module import _has_any_global_hook
from torch.overrides import TorchFunctionMode

from monai_unetfamily.nets.layers.norms import fold_batch_norm, instance_norm
from monai_unetfamily.nets.layers.upsampling import Upsampled, coarse_convolution, coarse_is_cheaper

# Convolutions of small grids in float32 under CPU autocast, where oneDNN's half-precision kernels are wrong.
#
# With AVX-512 BF16, the weight gradient of a 3-D convolution in bfloat16 depends on uninitialised memory if an axis
# is shorter than the kernel (PyTorch 2.13.0: kernel 3 with depth 2, kernel 5 with depths 2 to 4), or if a stride
# above 1 leaves one voxel along the last axis (PyTorch issue 169688). Its values are then arbitrary and may be NaN.
# Such grids are the smallest of a network. Dilated and transposed convolutions are not covered.


class SmallGridsInFloat32(TorchFunctionMode):
    """Within this context, and CPU autocast, convolve grids that are smaller than the kernel in float32.

    The result is in the dtype of autocast, as that of every other convolution.

    >>> x, conv = torch.ones(1, 1, 2, 4, 4), torch.nn.Conv3d(1, 1, 3, padding=1)
    >>> with torch.autocast("cpu", torch.bfloat16), SmallGridsInFloat32():
    ...     y = conv(x)
    >>> y.dtype, torch.equal(y, conv(x).bfloat16())
    (torch.bfloat16, True)
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Call `func`, a convolution of a small grid without autocast."""
        kwargs = kwargs or {}
        if func is torch.conv3d and torch.is_autocast_enabled("cpu") and is_small(*args, **kwargs):
            return _in_float32(func, args, kwargs).to(torch.get_autocast_dtype("cpu"))
        return func(*args, **kwargs)


def _in_float32(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        y: Tensor = func(*map(_as_float32, args), **{name: _as_float32(each) for name, each in kwargs.items()})
    return y


def _as_float32(argument: Any) -> Any:
    return argument.float() if isinstance(argument, Tensor) else argument


def small_grids_in_float32() -> AbstractContextManager[Any]:
    """Return that context under CPU autocast, and one that does nothing without it."""
    return SmallGridsInFloat32() if torch.is_autocast_enabled("cpu") else nullcontext()


def is_small(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int | Sequence[int] = 1, *_: Any, **__: Any
) -> bool:
    """Return whether an axis of a 3-D grid is shorter than the kernel, or, for a stride above 1, than both together.

    Only inputs on the CPU that autocast rounds, not float64, are looked at.

    >>> is_small(torch.empty(1, 1, 2, 8, 8), torch.empty(1, 1, 3, 3, 3))
    True
    >>> is_small(torch.empty(1, 1, 3, 8, 8), torch.empty(1, 1, 3, 3, 3))
    False
    """
    strides = [stride] * 3 if isinstance(stride, int) else [*stride] * (3 // len(stride))
    least = [k + (s if s > 1 else 0) for k, s in zip(weight.shape[2:], strides, strict=True)]
    rounded = input.device.type == "cpu" and input.dtype in (torch.float32, torch.bfloat16, torch.float16)
    return rounded and any(n < m for n, m in zip(input.shape[-3:], least, strict=True))


# One layer, (convolution, norm, dropout, activation), of one or several maps: MONAI's, at a lower price.
#
# The numbers are those of concatenating the maps, interpolating first those that are to be upsampled, and of torch's
# modules one after the other; what changes is the order of the work (see `ConvLayer`). Exporters, tracers, compilers
# and meta tensors are given that plain form, and so are layers with hooks, parametrizations or modules of other
# classes in them: whatever acts through a module's call reaches it.

_BLOCK = 16  # channels that a CPU convolves at once
_TINY = 100  # voxels of a grid that oneDNN is slower on
# What the fast form knows how to replace; a subclass, such as a parametrized one, may compute something else.
_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.InstanceNorm2d, nn.InstanceNorm3d)
_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


class ConvLayer(Convolution):
    """MONAI's `Convolution` of [a, b, ...] along channels, with its arguments, weights and names.

    - A convolution of a concatenation is the sum of the convolutions of its parts, so that an `Upsampled` part is
      convolved on its coarse grid (`upsampling`) where that is cheaper.
    - In `eval()`, batch norm is a factor and a term of each output channel: they go into the kernel and the bias.
    - Instance norm on a CPU reads channels-last maps, and overwrites them where no gradient is kept (`norms`).
    - Maps lie with channels last on a CPU, where convolution and pooling are faster then.
    - Activations that can work in place, unless `act` says `inplace=False`.

    The fast form reads the weights of its convolution and norm and does not call them. Hooks, `torch.nn.utils.prune`,
    `weight_norm`, `spectral_norm`, adapters that replace a convolution, and the transforms of `torch.func` need the
    calls: then the modules are called one after the other.

    >>> layer = ConvLayer(2, 5, 8, act="relu", norm="batch")
    >>> layer(torch.zeros(1, 3, 7, 5), Upsampled(torch.zeros(1, 2, 3, 2), (7, 5))).shape
    torch.Size([1, 8, 7, 5])
    """

    conv: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        act = kwargs.get("act")
        if isinstance(act, str) or (act is not None and "inplace" not in act[1]):
            for module in self.modules():
                if isinstance(module, nn.ReLU | nn.LeakyReLU):  # whose gradients need only what they return
                    module.inplace = True

    def forward(self, *maps: Tensor | Upsampled) -> Tensor:
        """Map (N, C_k, *grid) for each k to (N, out_channels, *grid); the C_k add up to in_channels."""
        if values_are_symbols(_tensor(maps[0])):
            return cast(Tensor, super().forward(joined(maps)))
        if len(_tensor(maps[0])) == 0:  # of an empty batch, norm and activation change nothing; torch's norms refuse it
            return cast(Tensor, self.conv(joined(maps)))
        if not self._is_plain():
            return self._call_modules(joined(maps))
        folded = self._folded_norm()
        weight, bias = self.conv.weight, self.conv.bias
        if folded is not None:
            weight, bias = fold_batch_norm(folded, weight, bias)
        y = self._convolve(maps, weight, bias)
        for layer in getattr(self, "adn", ()):
            if layer is not folded:
                y = _apply(layer, y)
        return y

    def _is_plain(self) -> bool:
        """Whether calling the modules would do what their classes say and nothing else."""
        if type(self.conv) not in _CONVOLUTIONS or torch._C._are_functorch_transforms_active():
            return False
        norm = getattr(getattr(self, "adn", None), "N", None)
        bypassed = not isinstance(norm, _BatchNorm | _InstanceNorm) or type(norm) in _NORMS
        return bypassed and not any(_has_hooks(module) for module in self.modules() if module is not self)

    def _call_modules(self, x: Tensor) -> Tensor:
        """Call the modules one after the other, as MONAI's Convolution does.

        Torch does not allow an in-place activation on what a full backward hook has looked at: it gets a copy.
        """
        y: Tensor = self.conv(x)
        adn = getattr(self, "adn", nn.Identity())
        if _has_hooks(adn):
            return cast(Tensor, adn(y))
        for layer in adn.children():
            y = layer(y.clone() if getattr(layer, "inplace", False) else y)
        return y

    def _folded_norm(self) -> _BatchNorm | None:
        """The batch norm that uses what it has learned."""
        norm = getattr(getattr(self, "adn", None), "N", None)
        return norm if isinstance(norm, _BatchNorm) and norm.track_running_stats and not norm.training else None

    def _convolve(self, maps: Sequence[Tensor | Upsampled], weight: Tensor, bias: Tensor | None) -> Tensor:
        """The sum over the maps that are cheaper on their coarse grid and the others together."""
        kernels = [weight[:, a:b] for a, b in pairwise(accumulate((_tensor(x).shape[1] for x in maps), initial=0))]
        parts, fine = [], []
        for x, kernel in zip(maps, kernels, strict=True):
            if isinstance(x, Upsampled) and coarse_is_cheaper(x, kernel):
                parts.append(coarse_convolution(x, kernel))
            else:
                fine.append((x, kernel))
        if fine:
            kernel = torch.cat([kernel for _, kernel in fine], dim=1) if parts else weight
            parts.append(_convolve(self.conv, lay_out(joined([x for x, _ in fine])), kernel, bias))
        elif bias is not None:
            parts.append(bias.view(-1, *[1] * (parts[0].ndim - 2)))
        return reduce(Tensor.add_, parts)


def _has_hooks(module: nn.Module) -> bool:
    """Whether something besides its `forward` runs where this module is called."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(hooks) or _has_any_global_hook()


def _tensor(x: Tensor | Upsampled) -> Tensor:
    return x if isinstance(x, Tensor) else x.coarse


def joined(maps: Sequence[Tensor | Upsampled]) -> Tensor:
    """Interpolate the maps that are to be, and concatenate all along channels."""
    fine = [x if isinstance(x, Tensor) else x.interpolated() for x in maps]
    return fine[0] if len(fine) == 1 else torch.cat(fine, dim=1)


def _convolve(conv: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve; torch passes oneDNN by for one image (1, C, D, H, W) of C D H <= 20480, up to twelve times slower."""
    passed_by = x.ndim == 5 and len(x) == 1 and prod(x.shape[:4]) <= 20480 and prod(x.shape[2:]) > _TINY
    if passed_by and _plain_float(x) and torch.backends.mkldnn.is_available():
        return torch.mkldnn_convolution(x, weight, bias, conv.padding, conv.stride, conv.dilation, conv.groups)
    return cast(Tensor, conv._conv_forward(x, weight, bias))


def _plain_float(x: Tensor) -> bool:
    """Whether x is float32 on a CPU, and convolved as such."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")


def _apply(layer: nn.Module, y: Tensor) -> Tensor:
    plain = y.device.type != "cpu" or y.dtype not in (torch.float32, torch.float64)
    if plain or not isinstance(layer, _InstanceNorm) or layer.track_running_stats:
        return cast(Tensor, layer(y))
    return instance_norm(y, layer.weight, layer.bias, layer.eps)


def lay_out(x: Tensor) -> Tensor:
    """Lay (N, C, *spatial) with its channels last on a CPU; nothing changes elsewhere."""
    return x.contiguous(memory_format=_CHANNELS_LAST[x.ndim]) if x.device.type == "cpu" else x


class _Head:
    """Logits of (N, in_channels, *spatial), in torch's usual layout.

    A convolution on a CPU costs as if it had 16 outputs at the least. Where there are a third of them, the taps of the
    last axis become outputs of a kernel that is one voxel thin there, and are shifted and added afterwards.
    """

    weight: Any
    bias: Any

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, *spatial) to (N, out_channels, *spatial)."""
        with small_grids_in_float32():
            return self._logits(x)

    def _logits(self, x: Tensor) -> Tensor:
        few = self.weight.shape[-1] == 3 and 3 * len(self.weight) <= _BLOCK and x.device.type == "cpu"
        if values_are_symbols(x) or not few:
            return cast(Tensor, super().forward(x)).contiguous()  # type: ignore[misc]
        before, here, after = self._taps(x).tensor_split(3, dim=1)
        y = here + self.bias.to(here.dtype).view(-1, *[1] * (x.ndim - 2))
        y[..., 1:] += before[..., :-1]
        y[..., :-1] += after[..., 1:]
        return y.contiguous()

    def _taps(self, x: Tensor) -> Tensor:
        """What each tap of the last axis adds: (N, 3 out_channels, *spatial)."""
        thin = self.weight.movedim(-1, 0).flatten(0, 1).unsqueeze(-1)
        convolve = F.conv2d if x.ndim == 4 else F.conv3d
        return convolve(x, thin, padding=[*(n // 2 for n in self.weight.shape[2:-1]), 0])


class Head2d(_Head, nn.Conv2d):
    """A head of two dimensions."""


class Head3d(_Head, nn.Conv3d):
    """A head of three dimensions."""


def shapes_are_symbols() -> bool:
    """Whether a network is being traced or exported, so that no answer may hang on the sizes of this input."""
    return torch.jit.is_tracing() or torch.compiler.is_exporting()


def values_are_symbols(x: Tensor) -> bool:
    """Whether no answer may hang on the values of x: a network is traced, exported or compiled, or x has none."""
    return shapes_are_symbols() or torch.compiler.is_compiling() or x.is_meta
