"""Convolutions of small grids in float32 under CPU autocast, where oneDNN's half-precision kernels are wrong.

With AVX-512 BF16, the weight gradient of a 3-D convolution in bfloat16 depends on uninitialised memory if an axis is
shorter than the kernel (PyTorch 2.13.0: kernel 3 with depth 2, kernel 5 with depths 2 to 4), or if a stride above 1
leaves one voxel along the last axis (PyTorch issue 169688). Its values are then arbitrary and may be NaN. Such grids
are the smallest of a network. Dilated and transposed convolutions are not covered.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


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
