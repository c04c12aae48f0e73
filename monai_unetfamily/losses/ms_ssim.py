"""Multi-scale structural similarity (MS-SSIM) of maps of any size, as a thing to train with.

Wang, Simoncelli and Bovik: "Multiscale structural similarity for image quality assessment", Asilomar 2003. Scale j
has half the resolution of scale j - 1; l compares local means, cs local contrast and structure, under a gaussian
window; M is the coarsest scale:

    MS-SSIM = l_M^w_M * prod_j cs_j^w_j,   l  = (2 mx my + C1) / (mx^2 + my^2 + C1)
                                           cs = (2 sxy + C2) / (sx^2 + sy^2 + C2)

Deviations, the first two as in `monai.metrics.regression.compute_ms_ssim`, the oracle of the tests: each scale's cs,
and the last one's l * cs, is averaged over space before its power is taken (MONAI: over channels too); 3-D is the same
with one axis more; the scales and the window follow from the size (`fit_scales`; MONAI refuses any side up to 160 at
five scales), and the weights of fewer scales are taken over their sum; powers of means below `FLOOR` are continued,
since those of negative ones are NaN and the slope at 0 is infinite (MONAI cuts them to 0, and every gradient with
them).
"""

from collections.abc import Sequence
from math import log

import torch
from torch import Tensor
from torch.nn import functional as F

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # finest scale first
WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2  # for maps with values in 0..1
FLOOR = 0.01
_POOL = {2: F.avg_pool2d, 3: F.avg_pool3d}


def fit_scales(size: Sequence[int]) -> tuple[int, tuple[int, ...]]:
    """The number of scales, and the window's voxels along each axis, for maps of this size.

    The window is the paper's, 11, or the largest odd number that fits an axis; its sigma shrinks with it. There are
    as many scales, up to five, as leave room for a window of 11 at the coarsest; always one.

    Raises:
        ValueError: a size that is not 2-D or 3-D, or has a side without a voxel.

    >>> for n in (8, 16, 32, 64, 128, 160, 176, 320):
    ...     print(n, *fit_scales((n, n)))
    8 1 (7, 7)
    16 1 (11, 11)
    32 2 (11, 11)
    64 3 (11, 11)
    128 4 (11, 11)
    160 4 (11, 11)
    176 5 (11, 11)
    320 5 (11, 11)
    >>> fit_scales((160, 160, 6))
    (1, (11, 11, 5))
    """
    if len(size) not in _POOL or min(size) < 1:
        raise ValueError(f"got maps of size {tuple(size)}; two or three sides of 1 or more are allowed.")
    scales = sum(min(size) // 2**scale >= WINDOW for scale in range(len(WEIGHTS)))
    return max(scales, 1), tuple(min(WINDOW, (side - 1) // 2 * 2 + 1) for side in size)


def scale_weights(scales: int) -> list[float]:
    """The paper's weights of the finest scales, over their sum.

    >>> [round(weight, 3) for weight in scale_weights(2)]
    [0.136, 0.864]
    """
    return [weight / sum(WEIGHTS[:scales]) for weight in WEIGHTS[:scales]]


def multiscale_ssim(x: Tensor, y: Tensor) -> Tensor:
    """MS-SSIM (N, C) of maps (N, C, *spatial) with values in 0..1: 1 where they are equal, else less.

    Differentiable, with finite gradients everywhere. Give float32 or float64: variances drown in half precision.

    Raises:
        ValueError: maps of different shapes; see `fit_scales` too.

    >>> x = torch.rand(1, 2, 32, 32, 32)
    >>> multiscale_ssim(x, x)
    tensor([[1., 1.]])
    """
    if x.shape != y.shape:
        raise ValueError(f"got maps of shapes {tuple(x.shape)} and {tuple(y.shape)}; one shape for both is allowed.")
    scales, windows = fit_scales(x.shape[2:])
    logarithm = torch.zeros((), dtype=x.dtype, device=x.device)
    for scale, weight in enumerate(scale_weights(scales), start=1):
        luminance, contrast = _compare(x, y, windows)
        mean = (contrast if scale < scales else luminance * contrast).flatten(2).mean(dim=2)
        logarithm = logarithm + weight * _log(mean)
        if scale < scales:
            x, y = (_POOL[len(windows)](each, 2) for each in (x, y))
    return logarithm.exp()


def _compare(x: Tensor, y: Tensor, windows: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Luminance l, and contrast and structure cs, of every window that lies inside."""
    bands = [_band(side, window).to(x) for side, window in zip(x.shape[2:], windows, strict=True)]
    mx, my, squares, products = (_blur(each, bands) for each in (x, y, x * x + y * y, x * y))
    means = mx * mx + my * my
    return (2 * mx * my + C1) / (means + C1), (2 * (products - mx * my) + C2) / (squares - means + C2)


def _blur(x: Tensor, bands: Sequence[Tensor]) -> Tensor:
    """Weighted means (N, C, *fewer) under the window, one axis at a time.

    Products with band matrices are over ten times faster than depthwise convolutions on a CPU, and on a GPU not
    rounded to TF32 unless the user asks for it, which would drown C2.
    """
    x = x @ bands[-1]
    for axis, band in enumerate(bands[:-1], start=2):
        x = (band.T @ x.flatten(axis + 1)).unflatten(axis + 1, x.shape[axis + 1 :])
    return x


def _band(side: int, window: int) -> Tensor:
    """The matrix (side, side - window + 1) whose every column is the window, one voxel further on."""
    distance = torch.arange(window, dtype=torch.float64) - (window - 1) / 2
    gaussian = torch.exp(-((distance / (SIGMA * window / WINDOW)) ** 2) / 2)
    columns = side - window + 1
    band = torch.zeros(columns, side, dtype=torch.float64)
    band.as_strided((columns, window), (side + 1, 1)).copy_(gaussian / gaussian.sum())
    return band.T


def _log(mean: Tensor) -> Tensor:
    """The logarithm; below `FLOOR` that of FLOOR^2 / (2 FLOOR - mean), which has the same value and slope there.

    >>> _log(torch.tensor([1.0, FLOOR, 0.0, -0.98])).exp()
    tensor([1.0000e+00, 1.0000e-02, 5.0000e-03, 1.0000e-04])
    """
    above, below = mean.clamp(min=FLOOR), mean.clamp(max=FLOOR)
    return torch.where(mean > FLOOR, above.log(), 2 * log(FLOOR) - (2 * FLOOR - below).log())
