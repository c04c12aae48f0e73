"""Upsample, then convolve, at the coarse grid's price.

UNet 3+ interpolates wide maps to a fine grid and convolves them there to few channels, which is most of its cost.
Linear interpolation U acts on space, the channels' mixing W_t of the kernel's tap t on channels, so they commute:

    conv(U x) = sum over taps t of shift_t(U(W_t x))

W_t x is computed on the coarse grid, which has s^d times fewer voxels. What is left, the sum over taps of "interpolate,
then shift, zero outside", is separable: along an axis of n coarse and m fine voxels it is one matrix (m, taps, n), and
neighbouring fine voxels draw on few coarse ones, so that the matrix is applied in pieces near its diagonal. Exact but
for rounding, edges and zero padding included, for any pair of sizes. The idea is this project's own.

The first axis is worked through piece by piece, forward and backward, so that of the taps' maps only a slice exists at
a time; for the way back nothing is kept but x and the kernel. Two dimensions are three whose second has one voxel.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from math import ceil, floor, prod
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

Triple = tuple[int, int, int]

_LINEAR = {2: "bilinear", 3: "trilinear"}
_PIECES = 128  # of an axis, at the most
# Prices in multiply-accumulates of a convolution, measured on two CPU cores; see docs/performance.md.
_INTERPOLATE = 100  # a voxel of one channel
_MIX = 1.5  # a multiply-accumulate on the coarse grid
_SPREAD = 3  # one of the pieces
_CALL = 1_000_000


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


def coarse_convolution(x: Upsampled, kernel: Tensor) -> Tensor:
    """Convolve (N, C, *coarse), interpolated to (N, C, *size), with (c, C, *taps), zero padded: (N, c, *size).

    >>> x, kernel = torch.randn(1, 8, 3, 5), torch.randn(4, 8, 3, 3)
    >>> plain = torch.conv2d(resize(x, (7, 10)), kernel, padding=1)
    >>> torch.allclose(coarse_convolution(Upsampled(x, (7, 10)), kernel), plain, atol=1e-5)
    True
    """
    device = x.coarse.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        x, kernel = Upsampled(x.coarse.to(dtype), x.size), kernel.to(dtype)
    flat = x.coarse.ndim == 4
    coarse, kernel = (t.unsqueeze(3) if flat else t for t in (x.coarse, kernel))
    y: Tensor = _CoarseConvolution.apply(coarse, kernel, _three(x.size))
    return y.squeeze(3) if flat else y


def coarse_is_cheaper(x: Upsampled, kernel: Tensor) -> bool:
    """Whether `coarse_convolution` costs less than the plain form; from shapes alone, so that the choice stays.

    The prices are a CPU's. On a GPU, where many small products wait for each other, nothing has been measured yet:
    there the plain form is taken.
    """
    if x.coarse.device.type not in ("cpu", "meta"):
        return False
    c, C, *taps = kernel.shape
    plain = prod(x.size) * (prod(taps) * C * c + _INTERPOLATE * C)
    return _cheapest(_three(x.coarse.shape[2:]), _three(x.size), _three(taps), C, c)[0] < plain


def _three(values: Sequence[int]) -> Triple:
    """Axes of two dimensions or three as those of three."""
    return cast(Triple, tuple(values) if len(values) == 3 else (values[0], 1, values[1]))


@lru_cache(maxsize=1024)
def _cheapest(n: Triple, m: Triple, taps: Triple, C: int, c: int) -> tuple[float, Triple]:
    """The least price of one image, and the pieces' widths (fine voxels, per axis) that it takes."""
    widths = [(16, 32, 64) if n[1] == 1 else (8, 16, 32), (8, 16, 32), (8, 16, 32, 64)]
    choices = [
        {max(w, ceil(size / _PIECES)) for w in axis if w == axis[0] or w < 2 * size}
        for axis, size in zip(widths, m, strict=True)
    ]
    return min((_price(n, m, taps, C, c, cast(Triple, w)), cast(Triple, w)) for w in product(*choices))


def _price(n: Triple, m: Triple, taps: Triple, C: int, c: int, widths: Triple) -> float:
    axes = [_cut(*axis) for axis in zip(n, m, taps, widths, strict=True)]
    first, second, third = (
        sum((f.stop - f.start) * (k.stop - k.start) for f, k in axis) * t for axis, t in zip(axes, taps, strict=True)
    )
    mixed = sum(k.stop - k.start for _, k in axes[0]) * n[1] * n[2]
    spread = first * taps[1] * n[1] * taps[2] * n[2] + m[0] * second * taps[2] * n[2] + m[0] * m[1] * third
    calls = len(axes[0]) * (2 + len(axes[1]) * (taps[1] + 2 * len(axes[2])))
    return _MIX * mixed * prod(taps) * C * c + _SPREAD * spread * c + _CALL * calls


def _cut(n: int, m: int, taps: int, width: int) -> list[tuple[slice, slice]]:
    """Pieces of an axis: `width` fine voxels, and the coarse ones that they and their neighbours lie between."""
    fine = [slice(start, min(start + width, m)) for start in range(0, m, width)]
    return [(voxels, _drawn_on(voxels, n, m, taps)) for voxels in fine]


def _drawn_on(fine: slice, n: int, m: int, taps: int) -> slice:
    first, last = max(fine.start - taps // 2, 0), min(fine.stop - 1 + taps // 2, m - 1)
    low, high = ((i + 0.5) * n / m - 0.5 for i in (first, last))
    return slice(max(floor(low), 0), min(ceil(high), n - 1) + 1)


class _Piece(NamedTuple):
    """A piece of an axis's matrix: fine voxels, the coarse ones that they draw on, and (fine, taps, coarse)."""

    fine: slice
    coarse: slice
    matrix: Tensor


def _pieces(n: int, m: int, taps: int, width: int, like: Tensor) -> list[_Piece]:
    """Cut "interpolate n voxels to m, then shift by each tap, zero outside".

    >>> [whole] = _pieces(2, 4, 3, 4, torch.zeros(1))
    >>> whole.matrix[:, 1].tolist()  # no shift: the interpolation itself
    [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    cut = _cut(n, m, taps, width)
    return [_Piece(fine, coarse, _matrix(fine, coarse, n, m, taps).to(like)) for fine, coarse in cut]


def _matrix(fine: slice, coarse: slice, n: int, m: int, taps: int) -> Tensor:
    voxels = torch.arange(fine.start, fine.stop)[:, None] + torch.arange(taps) - taps // 2
    source = ((voxels.double() + 0.5) * n / m - 0.5).clamp(0, n - 1)[..., None]
    weights = (1 - (source - torch.arange(coarse.start, coarse.stop)).abs()).clamp(min=0)
    return weights * ((voxels >= 0) & (voxels < m))[..., None]


class _Work:
    """What the forward and the backward pass share: the axes' pieces, and the kernel as (k2 k1, C, k3 c)."""

    def __init__(self, x: Tensor, kernel: Tensor, size: Triple) -> None:
        self.c, self.C, *taps = kernel.shape
        self.n = cast(Triple, tuple(x.shape[2:]))
        self.taps = cast(Triple, tuple(taps))
        _, widths = _cheapest(self.n, size, self.taps, self.C, self.c)
        axes = zip(self.n, size, taps, widths, strict=True)
        self.first, self.second, self.third = (_pieces(*axis, like=x) for axis in axes)
        self.mixing = kernel.permute(3, 2, 1, 4, 0).reshape(taps[1] * taps[0], self.C, taps[2] * self.c)

    def spread(self, y: Tensor, piece: _Piece, out: Tensor) -> None:
        """Taps' maps (k2 k1, K1 n2 n3, k3 c) of coarse voxels to (J1, m2, m3, c), axis by axis."""
        (_, k2, k3), (_, n2, n3), J1 = self.taps, self.n, len(out)
        z = _times(piece.matrix.flatten(1), y.view(k2, -1, n2 * n3 * k3 * self.c)).view(k2, J1, n2, -1)
        for second in self.second:
            u = _times(second.matrix[:, 0], z[0, :, second.coarse])
            for t in range(1, k2):
                u.baddbmm_(second.matrix[:, t].expand(J1, -1, -1), z[t, :, second.coarse])
            u = u.view(-1, n3 * k3, self.c)
            for third in self.third:
                rows, matrix = self._rows(third)
                out[:, second.fine, third.fine] = _times(matrix, u[:, rows]).view(J1, -1, len(matrix), self.c)

    def gather(self, out: Tensor, piece: _Piece) -> Tensor:
        """The adjoint of `spread`: (J1, m2, m3, c) to (k2 k1, K1 n2 n3, k3 c)."""
        (k1, k2, k3), (_, n2, n3), J1 = self.taps, self.n, len(out)
        z = out.new_zeros(k2, J1, n2, n3 * k3 * self.c)
        for second in self.second:
            u = out.new_zeros(J1 * len(second.matrix), n3 * k3, self.c)
            for third in self.third:
                rows, matrix = self._rows(third)
                voxels = out[:, second.fine, third.fine].reshape(len(u), len(matrix), self.c)
                u[:, rows].baddbmm_(matrix.T.expand(len(u), -1, -1), voxels)
            for t in range(k2):
                transposed = second.matrix[:, t].T.expand(J1, -1, -1)
                z[t, :, second.coarse].baddbmm_(transposed, u.view(J1, len(second.matrix), -1))
        return _times(piece.matrix.flatten(1).T, z.view(k2, J1, -1)).view(k2 * k1, -1, k3 * self.c)

    def _rows(self, third: _Piece) -> tuple[slice, Tensor]:
        """A piece of the last axis, where each coarse voxel has its taps beside it: rows (n3 k3) and (J3, K3 k3)."""
        k3 = self.taps[2]
        return slice(third.coarse.start * k3, third.coarse.stop * k3), third.matrix.transpose(1, 2).flatten(1)


def _times(matrix: Tensor, batch: Tensor) -> Tensor:
    """One matrix (a, b) times each of (batch, b, columns)."""
    return torch.bmm(matrix.expand(len(batch), -1, -1), batch)


class _CoarseConvolution(torch.autograd.Function):
    """(N, C, *coarse) and (c, C, *taps) to (N, c, *size), channels last, of three axes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, size: Triple) -> Tensor:
        ctx.save_for_backward(x, kernel)
        ctx.size = size
        work = _Work(x, kernel, size)
        shape = (len(x), work.c, *size)
        y = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last_3d)
        for image, out in zip(x.movedim(1, -1), y.movedim(1, -1), strict=True):
            for piece in work.first:
                voxels = image[piece.coarse].reshape(-1, work.C)
                work.spread(_times(voxels, work.mixing), piece, out[piece.fine])
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        x, kernel = ctx.saved_tensors
        work = _Work(x, kernel, ctx.size)
        dx, dmixing = torch.zeros_like(x, memory_format=torch.channels_last_3d), torch.zeros_like(work.mixing)
        images = zip(x.movedim(1, -1), dx.movedim(1, -1), gradient.movedim(1, -1), strict=True)
        for image, d_image, d_out in images:
            for piece in work.first:
                d_taps = work.gather(d_out[piece.fine], piece)
                voxels = image[piece.coarse].reshape(-1, work.C)
                dmixing += _times(voxels.T, d_taps)
                d_voxels = torch.bmm(d_taps, work.mixing.transpose(1, 2)).sum(0)
                d_image[piece.coarse] += d_voxels.view_as(d_image[piece.coarse])
        k1, k2, k3 = work.taps
        return dx, dmixing.view(k2, k1, work.C, k3, work.c).permute(4, 2, 1, 0, 3), None
