"""Upsample, then convolve, at the coarse grid's price.

UNet 3+ interpolates wide maps to a fine grid and convolves them there to few channels, which is most of its cost.
Linear interpolation U acts on space, the channels' mixing W_t of the kernel's tap t on channels, so they commute:

    conv(U x) = sum over taps t of shift_t(U(W_t x))

W_t x is computed on the coarse grid, which has s^d times fewer voxels. What is left, the sum over taps of "interpolate,
then shift, zero outside", is separable: along an axis of n coarse and m fine voxels it is one matrix (m, taps, n), and
a few neighbouring fine voxels draw on a few coarse ones, so that the matrix is applied in pieces near its diagonal.
Exact but for rounding, edges and zero padding included, for any pair of sizes. The idea is this project's own.

Two dimensions are three, the middle axis being one voxel wide. `coarse_convolution` works through the first axis piece
by piece, so that of the taps' maps only a slice exists at a time; so does its backward pass, which keeps nothing but
x and the kernel.
"""

from collections.abc import Sequence
from math import ceil, floor, prod
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


_LINEAR = {2: "bilinear", 3: "trilinear"}


class Upsampled(NamedTuple):
    """A map (N, C, *coarse) that is to be interpolated linearly to `size` voxels per axis by whoever reads it."""

    coarse: Tensor
    size: Sequence[int]

    def interpolated(self) -> Tensor:
        """The map (N, C, *size)."""
        return resize(self.coarse, self.size)


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Interpolate (N, C, *spatial) linearly to `size` voxels per axis (`align_corners=False`).

    >>> resize(torch.arange(4.0).reshape(1, 1, 2, 2), (2, 4))[0, 0, 0].tolist()
    [0.0, 0.25, 0.75, 1.0]
    """
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode=_LINEAR[x.ndim - 2], align_corners=False)


class Piece(NamedTuple):
    """A piece of an axis's matrix: some fine voxels, the coarse ones that they draw on, (fine, taps, coarse)."""

    fine: slice
    coarse: slice
    matrix: Tensor


def pieces(n: int, m: int, taps: int, width: int, like: Tensor) -> list[Piece]:
    """Cut "interpolate n voxels to m, then shift by each tap, zero outside" into pieces of `width` fine voxels.

    >>> [whole] = pieces(2, 4, 3, 4, torch.zeros(1))
    >>> whole.matrix[:, 1].tolist()  # no shift: the interpolation itself
    [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    unit = torch.eye(n, dtype=torch.promote_types(like.dtype, torch.float32), device=like.device)[None]
    interpolation = F.pad(F.interpolate(unit, size=m, mode="linear", align_corners=False)[0], [taps // 2] * 2)
    matrix = torch.stack([interpolation[:, t : t + m] for t in range(taps)]).permute(2, 0, 1).to(like.dtype)
    fine = [slice(start, min(start + width, m)) for start in range(0, m, width)]
    coarse = [_drawn_on(rows, n, m, taps) for rows in fine]
    return [Piece(rows, columns, matrix[rows, :, columns]) for rows, columns in zip(fine, coarse, strict=True)]


def _drawn_on(fine: slice, n: int, m: int, taps: int) -> slice:
    """The coarse voxels between which the fine ones and their neighbours lie."""
    first, last = max(fine.start - taps // 2, 0), min(fine.stop - 1 + taps // 2, m - 1)
    low, high = ((i + 0.5) * n / m - 0.5 for i in (first, last))
    return slice(max(floor(low - _SLACK), 0), min(ceil(high + _SLACK), n - 1) + 1)


_SLACK = 1e-3  # voxels; coordinates in float32 are rounded


class _Plan(NamedTuple):
    """How three axes are cut, and the numbers of taps."""

    axes: tuple[list[Piece], list[Piece], list[Piece]]
    taps: tuple[int, int, int]


def _plan(x: Tensor, kernel: Tensor, size: Sequence[int]) -> _Plan:
    taps = kernel.shape[2:]
    widths = [_width(n, m, x) for n, m in zip(x.shape[2:], size, strict=True)]
    axes = [pieces(n, m, t, w, x) for n, m, t, w in zip(x.shape[2:], size, taps, widths, strict=True)]
    return _Plan(cast(Any, tuple(axes)), cast(Any, tuple(taps)))


def _width(n: int, m: int, x: Tensor) -> int:
    flat = x.shape[3] == 1
    return min(64 if flat else 16, (16 if flat else 4) * max(1, round(m / n)))


class CoarseConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, size: Sequence[int]) -> Tensor:
        ctx.save_for_backward(x, kernel)
        ctx.size = size
        plan = _plan(x, kernel, size)
        mixing = _mixing(kernel)
        out = x.new_empty(x.shape[0], kernel.shape[0], *size).contiguous(memory_format=torch.channels_last_3d)
        for image, result in zip(x.movedim(1, -1), out.movedim(1, -1), strict=True):
            for piece in plan.axes[0]:
                _spread(_mix(image[piece.coarse], mixing), piece, plan, result[piece.fine])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        x, kernel = ctx.saved_tensors
        plan = _plan(x, kernel, ctx.size)
        mixing = _mixing(kernel)
        dx, dmixing = torch.zeros_like(x.movedim(1, -1).contiguous()), torch.zeros_like(mixing)
        for image, d_image, result in zip(x.movedim(1, -1), dx, gradient.movedim(1, -1), strict=True):
            for piece in plan.axes[0]:
                dy = _gather(result[piece.fine], piece, plan, x.shape[2:])
                voxels = image[piece.coarse].reshape(1, -1, x.shape[1])
                dmixing.baddbmm_(voxels.transpose(1, 2).expand(len(dy), -1, -1), dy)
                d_image[piece.coarse] += torch.bmm(dy, mixing.transpose(1, 2)).sum(0).view_as(d_image[piece.coarse])
        k1, k2, k3 = plan.taps
        dkernel = dmixing.view(k2, k1, x.shape[1], k3, -1).permute(4, 2, 1, 0, 3)
        return dx.movedim(-1, 1), dkernel, None


def _mixing(kernel: Tensor) -> Tensor:
    """The kernel (c, C, k1, k2, k3) as matrices (k2 k1, C, k3 c)."""
    c, C, k1, k2, k3 = kernel.shape
    return kernel.permute(3, 2, 1, 4, 0).reshape(k2 * k1, C, k3 * c)


def _mix(x: Tensor, mixing: Tensor) -> Tensor:
    """(K1, n2, n3, C) to (k2 k1, K1 n2 n3, k3 c)"""
    return torch.matmul(x.reshape(1, -1, x.shape[-1]), mixing)


def _spread(y: Tensor, first: Piece, plan: _Plan, out: Tensor) -> None:
    """Apply the three axes' matrices to the taps' maps"""
    (_, seconds, thirds), (k1, k2, k3) = plan.axes, plan.taps
    J1, c = out.shape[0], out.shape[-1]
    n2, n3 = seconds[-1].coarse.stop, thirds[-1].coarse.stop
    op = first.matrix.reshape(J1, -1)
    z = torch.bmm(op.expand(k2, -1, -1), y.view(k2, op.shape[1], -1)).view(k2, J1, n2, -1)
    for second in seconds:
        u = _sum_of_taps(second, z)
        u = u.view(-1, n3 * k3, c)
        for third in thirds:
            op = third.matrix.transpose(1, 2).reshape(third.matrix.shape[0], -1)
            part = torch.bmm(op.expand(len(u), -1, -1), u[:, k3 * third.coarse.start : k3 * third.coarse.stop])
            out[:, second.fine, third.fine] = part.view(J1, -1, *part.shape[1:])


def _sum_of_taps(piece: Piece, z: Tensor) -> Tensor:
    J1 = z.shape[1]
    u = torch.bmm(piece.matrix[:, 0].expand(J1, -1, -1), z[0, :, piece.coarse])
    for t in range(1, len(z)):
        u.baddbmm_(piece.matrix[:, t].expand(J1, -1, -1), z[t, :, piece.coarse])
    return u


def _gather(d_out: Tensor, first: Piece, plan: _Plan, grid: Sequence[int]) -> Tensor:
    """The adjoint of _spread"""
    (_, seconds, thirds), (k1, k2, k3) = plan.axes, plan.taps
    J1, c = d_out.shape[0], d_out.shape[-1]
    n2, n3 = grid[1:]
    dz = d_out.new_zeros(k2, J1, n2, n3 * k3 * c)
    for second in seconds:
        J2 = second.matrix.shape[0]
        du = d_out.new_zeros(J1 * J2, n3 * k3, c)
        for third in thirds:
            op = third.matrix.transpose(1, 2).reshape(third.matrix.shape[0], -1).T
            part = d_out[:, second.fine, third.fine].reshape(J1 * J2, -1, c)
            du[:, k3 * third.coarse.start : k3 * third.coarse.stop].baddbmm_(op.expand(J1 * J2, -1, -1), part)
        du = du.view(J1, J2, -1)
        for t in range(k2):
            dz[t, :, second.coarse].baddbmm_(second.matrix[:, t].T.expand(J1, -1, -1), du)
    op = first.matrix.reshape(J1, -1).T
    K1 = first.matrix.shape[2]
    return torch.bmm(op.expand(k2, -1, -1), dz.view(k2, J1, -1)).view(-1, K1 * n2 * n3, k3 * c)


def coarse_convolution(x: Tensor, kernel: Tensor, size: Sequence[int]) -> Tensor:
    if x.ndim == 4:
        return CoarseConvolution.apply(x.unsqueeze(3), kernel.unsqueeze(3), (size[0], 1, size[1])).squeeze(3)
    return CoarseConvolution.apply(x, kernel, tuple(size))


def coarse_is_cheaper(x: Tensor, kernel: Tensor, size: Sequence[int]) -> bool:
    return prod(size) >= 1.5 * prod(x.shape[2:])
