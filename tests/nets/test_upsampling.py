"""The convolution on the coarse grid equals the plain form: values and gradients, any sizes, kernels and types."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from monai_unetfamily.nets.layers import resize
from monai_unetfamily.nets.layers.upsampling import Upsampled, coarse_convolution, coarse_is_cheaper

Case = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]  # coarse size, fine size, kernel

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
CASES: list[Case] = [
    *[((4, 4), (4 * s, 4 * s), (3, 3)) for s in (1, 2, 3, 4, 8, 16)],
    *[((2, 3, 2), (2 * s, 3 * s, 2 * s), (3, 3, 3)) for s in (1, 2, 4, 8, 16)],
    ((5, 7), (11, 13), (3, 3)),  # odd, and no whole factor
    ((1, 1), (16, 5), (3, 3)),  # one voxel
    ((4, 4), (4, 9), (3, 1)),  # one axis alone
    ((7, 3), (5, 3), (5, 3)),  # coarser, wide kernels
    ((40, 3), (83, 5), (3, 3)),  # several pieces along the first axis
    ((3, 50), (7, 150), (3, 5)),  # and along the last
    ((2, 5, 3), (2, 11, 48), (1, 3, 3)),
    ((1, 1, 1), (3, 2, 1), (3, 3, 3)),
    ((20, 19, 2), (41, 37, 31), (3, 5, 3)),  # and along the middle one
]
IDS = [f"{'x'.join(map(str, n))} to {'x'.join(map(str, m))}, {'x'.join(map(str, k))}" for n, m, k in CASES]


def plain(x: Tensor, kernel: Tensor, size: tuple[int, ...]) -> Tensor:
    """Interpolate, then convolve: the paper's form."""
    convolve = F.conv2d if x.ndim == 4 else F.conv3d
    return convolve(resize(x, size), kernel, padding=[k // 2 for k in kernel.shape[2:]])


def inputs(case: Case, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    x, kernel = torch.randn(2, 5, *case[0], dtype=dtype), torch.randn(4, 5, *case[2], dtype=dtype)
    return x.requires_grad_(), kernel.requires_grad_()


def error(got: Tensor, expected: Tensor) -> float:
    return float(((got - expected).abs().max() / expected.abs().max()).detach())


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_values_and_gradients_are_those_of_the_plain_form(case: Case, dtype: torch.dtype) -> None:
    x, kernel = inputs(case, dtype)
    got, expected = coarse_convolution(Upsampled(x, case[1]), kernel), plain(x, kernel, case[1])
    assert got.shape == expected.shape
    weights = torch.randn_like(expected)
    ours, theirs = (torch.autograd.grad(y, (x, kernel), weights) for y in (got, expected))
    assert error(got, expected) <= TOLERANCE[dtype]
    assert all(error(a, b) <= TOLERANCE[dtype] for a, b in zip(ours, theirs, strict=True))


@pytest.mark.slow
def test_gradient_is_that_of_finite_differences() -> None:
    x, kernel = inputs(((2, 3, 2), (5, 4, 3), (3, 1, 3)))
    assert torch.autograd.gradcheck(lambda a, b: coarse_convolution(Upsampled(a, (5, 4, 3)), b), (x, kernel))


def test_a_map_of_ones_meets_zeros_outside() -> None:
    """By hand: interpolated ones are ones, so each voxel counts the taps that lie inside."""
    y = coarse_convolution(Upsampled(torch.ones(1, 1, 2, 2), (4, 6)), torch.ones(1, 1, 3, 3))
    rows, columns = torch.tensor([2.0, 3, 3, 2]), torch.tensor([2.0, 3, 3, 3, 3, 2])
    torch.testing.assert_close(y[0, 0], rows[:, None] * columns)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_gives_its_type_and_float32_gradients(dtype: torch.dtype) -> None:
    case = ((4, 4, 4), (8, 8, 8), (3, 3, 3))
    x, kernel = inputs(case, torch.float32)
    with torch.autocast("cpu", dtype):
        y = coarse_convolution(Upsampled(x, case[1]), kernel)
    assert y.dtype == dtype
    assert error(y.float(), plain(x, kernel, case[1])) < 4 * torch.finfo(dtype).eps
    gradients = torch.autograd.grad(y.float().sum(), (x, kernel))
    assert all(g.dtype == torch.float32 and g.isfinite().all() for g in gradients)


def test_maps_of_either_layout_give_the_same() -> None:
    x, kernel = inputs(((6, 5, 4), (12, 10, 8), (3, 3, 3)))
    last = x.contiguous(memory_format=torch.channels_last_3d)
    a, b = (coarse_convolution(Upsampled(t, (12, 10, 8)), kernel) for t in (x, last))
    assert torch.equal(a, b)
    assert a.is_contiguous(memory_format=torch.channels_last_3d)


def test_nothing_is_kept_for_the_way_back_but_map_and_kernel() -> None:
    x, kernel = inputs(((4, 4, 4), (16, 16, 16), (3, 3, 3)))
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        coarse_convolution(Upsampled(x, (16, 16, 16)), kernel)
    assert sorted(kept) == sorted([x.numel(), kernel.numel()])


@pytest.mark.parametrize("factor", [2, 4])
def test_the_taps_are_never_all_held_at_full_size(factor: int) -> None:
    """What is made besides the output stays far below 3^d times the output's channels at full size."""
    c, n = 8, 16
    x, kernel = torch.randn(1, 32, n, n, n), torch.randn(c, 32, 3, 3, 3)
    with torch.profiler.profile(profile_memory=True) as profiler:
        coarse_convolution(Upsampled(x, [factor * n] * 3), kernel)
    largest = max(event.self_cpu_memory_usage for event in profiler.events())
    assert 0 < largest < 27 * c * (factor * n) ** 3 * 4 / 4


@pytest.mark.parametrize(
    ("n", "m", "C", "c", "cheaper"),
    [
        ((20, 20), (320, 320), 1024, 64, True),
        ((160, 160), (320, 320), 320, 64, True),
        ((32, 32, 32), (64, 64, 64), 160, 32, True),
        ((48, 48, 48), (96, 96, 96), 80, 16, True),
        ((320, 320), (320, 320), 320, 64, False),
        ((120, 120), (128, 128), 64, 64, False),
        ((4, 4), (8, 8), 4, 4, False),
        ((64, 64), (128, 128), 8, 8, False),
    ],
)
def test_the_choice_hangs_on_shapes(n: tuple[int, ...], m: tuple[int, ...], C: int, c: int, cheaper: bool) -> None:
    """As measured on two cores, with room to spare on either side; tensors without values are enough to choose."""
    x, kernel = torch.empty(2, C, *n, device="meta"), torch.empty(c, C, *[3] * len(n), device="meta")
    assert coarse_is_cheaper(Upsampled(x, m), kernel) is cheaper
