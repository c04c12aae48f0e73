"""Norms at a lower price: batch norm that has learned goes into the kernel, instance norm reads channels-last maps."""

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

_CACHED = 2**18  # numbers of a slice that stays in a core's cache


def fold_batch_norm(norm: _BatchNorm, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Kernel (C_out, C_in, *taps) and bias of "convolve, then norm" in `eval()`: a factor and a term a channel.

    >>> conv, norm = torch.nn.Conv2d(2, 3, 1), torch.nn.BatchNorm2d(3).eval()
    >>> x = torch.ones(1, 2, 4, 4)
    >>> torch.allclose(torch.conv2d(x, *fold_batch_norm(norm, conv.weight, conv.bias)), norm(conv(x)))
    True
    """
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    scale = torch.rsqrt(variance + norm.eps) * (1 if norm.weight is None else norm.weight)
    shift = ((0 if bias is None else bias) - mean) * scale + (0 if norm.bias is None else norm.bias)
    return weight * scale.view(-1, *[1] * (weight.ndim - 1)), shift


def instance_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Subtract the mean of each image and channel of (N, C, *spatial), divide by the deviation, scale and shift.

    For channels-last maps on a CPU. torch's instance norm copies them to another layout first; its group and batch
    norms read them, but sum in float32 one by one: errors of 1e-4 at 96^3 voxels. Where no gradient is kept, x is
    overwritten.

    >>> x = torch.randn(2, 3, 8, 8)
    >>> expected = torch.nn.functional.instance_norm(x)
    >>> torch.allclose(instance_norm(x, None, None, 1e-5), expected, atol=1e-5)
    True
    """
    weight = x.new_ones(x.shape[1]) if weight is None else weight
    bias = torch.zeros_like(weight) if bias is None else bias
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return cast(Tensor, _InstanceNorm.apply(x, weight, bias, eps))
    mean, variance = moments(x)
    return _scale(x, mean, torch.rsqrt(variance + eps), weight, bias, out=x)


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (N, C, 1, ...) over the space of (N, C, *spatial), summed slice by slice.

    >>> [moment.flatten().tolist() for moment in moments(torch.tensor([[[[1.0, 3.0]]]]))]
    [[2.0], [1.0]]
    """
    space = tuple(range(2, x.ndim))
    mean = x.mean(space, keepdim=True)
    rows = max(1, _CACHED * x.shape[2] // x.numel())
    slices = x.split(rows, dim=2)
    scratch = torch.empty_like(slices[0])  # one for all: fresh memory costs more than the sums
    squares = [_sum_of_squares(part, mean, scratch[:, :, : part.shape[2]]) for part in slices]
    return mean, torch.stack(squares).sum(0) * (mean.numel() / x.numel())


def _sum_of_squares(x: Tensor, mean: Tensor, scratch: Tensor) -> Tensor:
    return torch.sub(x, mean, out=scratch).square_().sum(tuple(range(2, x.ndim)), keepdim=True)


def _scale(x: Tensor, mean: Tensor, rate: Tensor, weight: Tensor, bias: Tensor, out: Tensor | None = None) -> Tensor:
    channels = (-1, *[1] * (x.ndim - 2))
    rate = rate * weight.view(channels)
    return torch.addcmul(bias.view(channels) - mean * rate, x, rate, out=out)


class _InstanceNorm(torch.autograd.Function):
    """Its gradient is batch norm's, image by image."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        mean, variance = moments(x)
        rate = torch.rsqrt(variance + eps)
        ctx.save_for_backward(x, weight, mean, rate)
        return _scale(x, mean, rate, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, rate = ctx.saved_tensors
        images = zip(gradient.split(1), x.split(1), mean, rate, strict=True)
        parts = [_batch_norm_backward(g, image, weight, m.flatten(), r.flatten()) for g, image, m, r in images]
        dx, dweight, dbias = zip(*parts, strict=True)
        return dx[0] if len(dx) == 1 else torch.cat(dx), sum(dweight), sum(dbias), None


def _batch_norm_backward(g: Tensor, x: Tensor, weight: Tensor, mean: Tensor, rate: Tensor) -> Any:
    return torch.ops.aten.native_batch_norm_backward(g, x, weight, None, None, mean, rate, True, 0.0, [True] * 3)
