"""The sliding window against MONAI's own and a naive one, and the laws of slices, neighbours, mirrors and skips."""

import random
from itertools import product
from typing import Any

import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from monai.data.utils import compute_importance_map
from monai.inferers import SliceInferer, SlidingWindowInferer
from torch import Tensor

from monai_unetfamily.bundles import check_background
from monai_unetfamily.inferers import WindowInferer
from monai_unetfamily.inferers.windows import window_starts


def network(x: Tensor) -> Tensor:
    return torch.cat([x, 2 * x, -x], dim=1)


def knows_its_window(x: Tensor) -> Tensor:
    """Scores that depend on where in the window a voxel lies, and on all the window's voxels."""
    ramp = sum(torch.linspace(-1, 2, n).reshape(-1, *[1] * after) for after, n in enumerate(reversed(x.shape[2:])))
    mean = x.mean(dim=tuple(range(1, x.ndim)), keepdim=True)
    return torch.cat([x[:, :1] + ramp, x[:, -1:] * mean, mean - ramp - x[:, :1]], dim=1)


def naive(x: Tensor, roi: tuple[int, ...], overlap: float, mode: str, cval: float = 0.0) -> Tensor:
    """Every window by itself in float64, on an image padded by hand."""
    before = [max(0, r - n) // 2 for n, r in zip(x.shape[2:], roi, strict=True)]
    size = [max(n, r) for n, r in zip(x.shape[2:], roi, strict=True)]
    held = tuple(slice(b, b + n) for b, n in zip(before, x.shape[2:], strict=True))
    padded = torch.full((*x.shape[:2], *size), cval)
    padded[:, :, *held] = x
    weight = compute_importance_map(roi, mode).double()
    sums, counts = torch.zeros(len(x), 3, *size, dtype=torch.double), torch.zeros(size, dtype=torch.double)
    for start in product(*(window_starts(n, r, overlap) for n, r in zip(size, roi, strict=True))):
        window = tuple(slice(s, s + r) for s, r in zip(start, roi, strict=True))
        sums[:, :, *window] += weight * knows_its_window(padded[:, :, *window]).double().softmax(1)
        counts[*window] += weight
    return (sums / counts)[:, :, *held].float()


# sizes on which even spreading and MONAI's clamping give the same windows
@pytest.mark.parametrize("mode", ["gaussian", "constant"])
@pytest.mark.parametrize("sw_batch_size", [1, 4])
@pytest.mark.parametrize(
    ("size", "roi", "overlap"),
    [
        ((20, 16), (8, 8), 0.5),
        ((23, 11), (8, 11), 0.375),
        ((12, 16, 10), (8, 8, 4), 0.5),
        ((14, 8, 5), (8, 8, 8), 0.25),
        ((3, 4, 5), (8, 6, 4), 0.75),
    ],
)
def test_equals_monai_where_the_windows_are_the_same(
    size: tuple[int, ...], roi: tuple[int, ...], overlap: float, sw_batch_size: int, mode: str
) -> None:
    x = torch.randn(2, 2, *size)
    window: dict[str, Any] = {"roi_size": roi, "overlap": overlap, "mode": mode, "sw_batch_size": sw_batch_size}
    reference = SlidingWindowInferer(**window)(x, lambda w: knows_its_window(w).softmax(1))
    torch.testing.assert_close(WindowInferer(**window)(x, knows_its_window), reference, atol=1e-5, rtol=0)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_equals_monai_slice_by_slice(axis: int) -> None:
    x = torch.randn(1, 1, 6, 7, 12)
    window: dict[str, Any] = {"roi_size": (6, 4), "sw_batch_size": 3}
    reference = SliceInferer(axis, overlap=0, mode="gaussian", **window)(x, lambda w: knows_its_window(w).softmax(1))
    scores = WindowInferer(slice_axis=axis, overlap=0, **window)(x, knows_its_window)
    if axis == 1:  # the step divides: (6, 12) in windows of (6, 4)
        torch.testing.assert_close(scores, reference, atol=1e-5, rtol=0)
    assert scores.shape == (1, 3, 6, 7, 12)


@pytest.mark.parametrize("number", range(40))
def test_equals_a_naive_blend(number: int) -> None:
    """Random geometries: windows larger and smaller than the volume, axes of one voxel, odd sizes, batches."""
    chance = random.Random(number)
    axes = chance.choice([2, 3])
    size = [chance.choice([1, 2, 5, 9, 13]) for _ in range(axes)]
    roi = tuple(chance.choice([1, 2, 3, 5, 8]) for _ in range(axes))
    overlap, mode = chance.choice([0.0, 0.2, 0.25, 0.5, 0.6, 0.8]), chance.choice(["gaussian", "constant"])
    x = torch.randn(chance.choice([1, 2]), 2, *size, generator=torch.Generator().manual_seed(number))
    inferer = WindowInferer(roi, overlap=overlap, mode=mode, cval=0.5, sw_batch_size=chance.choice([1, 3, 7]))
    expected = naive(x, roi, overlap, mode, cval=0.5)
    torch.testing.assert_close(inferer(x, knows_its_window), expected, atol=1e-5, rtol=0)
    for axis in (None, *range(axes)):
        scores = torch.full_like(expected, torch.nan)
        for slab in inferer.slabs(x, knows_its_window, axis):
            scores[:, :, *slab.where] = slab.scores
        torch.testing.assert_close(scores, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("roi", [(0, 4), (None, 4), (-1, 4), 4])
def test_a_window_may_take_a_whole_axis(roi: Any) -> None:
    x, seen = torch.randn(1, 2, 9, 8), set()

    def look(window: Tensor) -> Tensor:
        seen.add(tuple(window.shape[2:]))
        return window

    WindowInferer(roi)(x, look)
    assert seen == {(4, 4)} if roi == 4 else {(9, 4)}


def test_overlap_may_differ_from_axis_to_axis() -> None:
    x, windows = torch.randn(1, 2, 8, 8), []
    WindowInferer((4, 4), overlap=(0.5, 0))(x, lambda w: windows.append(w) or w)  # type: ignore[func-returns-value]
    assert len(windows) == 3 * 2


def test_probabilities_sum_to_one_with_background_and_are_free_without() -> None:
    x = torch.randn(1, 1, 9, 9)
    torch.testing.assert_close(WindowInferer((4, 4))(x, network).sum(1), torch.ones(1, 9, 9))
    torch.testing.assert_close(WindowInferer((4, 4), background=False)(x, network), network(x).sigmoid())
    torch.testing.assert_close(WindowInferer((4, 4), background=None)(x, network), network(x))


def test_a_bundle_with_a_background_takes_an_inferer_that_says_nothing_of_it() -> None:
    names = {0: "background", 1: "liver"}
    check_background(names, WindowInferer((4, 4), background=None))
    with pytest.raises(ValueError, match="WindowInferer has background=False"):
        check_background(names, WindowInferer((4, 4), background=False))


def test_windows_that_say_absent_do_not_veto_their_neighbours() -> None:
    """Blended as logits, one window's -1000 would outvote every other window; as probabilities it is one vote."""
    calls = iter(range(100))

    def sometimes_absent(x: Tensor) -> Tensor:
        foreground = torch.full_like(x, -1000.0 if next(calls) == 0 else 5.0)
        return torch.cat([torch.zeros_like(x), foreground], dim=1)

    scores = WindowInferer((4,) * 2, overlap=0.5, mode="constant")(torch.zeros(1, 1, 6, 4), sometimes_absent)
    assert scores[0, 1, 2:4].min() > 0.49  # two windows, one vote each
    assert scores[0, 1, :2].max() < 1e-6


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_2d_network_runs_slice_by_slice_along_the_axis(axis: int) -> None:
    x = torch.randn(1, 1, 5, 6, 7)
    scores = WindowInferer((4, 4), slice_axis=axis, overlap=0)(x, network)
    torch.testing.assert_close(scores, network(x).softmax(1))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_25d_network_sees_the_slices_before_and_after(axis: int) -> None:
    x = torch.randn(1, 2, 5, 6, 7)

    def shifted(shift: int) -> Tensor:
        places = (torch.arange(x.shape[axis + 2]) + shift).clamp(0, x.shape[axis + 2] - 1)
        return x.index_select(axis + 2, places)

    scores = WindowInferer((4, 4), background=None, slice_axis=axis, neighbours=2)(x, lambda w: w)
    torch.testing.assert_close(scores, torch.cat([shifted(shift) for shift in range(-2, 3)], dim=1))


@pytest.mark.parametrize("axes", [(0,), (2, 0), (0, 1, 2)])
@pytest.mark.parametrize("window", [{"roi_size": (4, 2, 6)}, {"roi_size": (4, 6), "neighbours": 1, "slice_axis": 1}])
def test_mirrored_scores_are_the_mean_of_flipped_passes(axes: tuple[int, ...], window: dict[str, Any]) -> None:
    """On a volume whose windows lie the same from both ends, flipping each window flips the volume."""
    x = torch.randn(1, 1, 8, 6, 12)
    plain = WindowInferer(overlap=0.5, **window)
    flips = [[a + 2 for a, on in zip(axes, ons, strict=True) if on] for ons in product((0, 1), repeat=len(axes))]
    expected = torch.stack([plain(x.flip(f), knows_its_window).flip(f) for f in flips]).mean(0)
    mirrored = WindowInferer(overlap=0.5, mirror_axes=axes, sw_batch_size=3, **window)
    torch.testing.assert_close(mirrored(x, knows_its_window), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("window", [{"roi_size": (4, 4, 4)}, {"roi_size": (4, 4), "neighbours": 1}])
def test_windows_of_nothing_but_background_are_skipped(background: bool, window: dict[str, Any]) -> None:
    """Exact for a network that finds nothing in such windows; here, where no value is above -1."""
    x = torch.full((2, 1, 12, 9, 8), -1.0)
    x[0, :, 5, 6, 3] = 1.0
    run: list[int] = []

    def finds_above(w: Tensor) -> Tensor:
        run.append(len(w))
        found = torch.where(w.amax(1, keepdim=True) > -1, 1e4, -1e4)
        return torch.cat([-found if background else found, found], dim=1)

    every = WindowInferer(background=background, sw_batch_size=3, **window)(x, finds_above)
    calls = sum(run)
    some = WindowInferer(background=background, sw_batch_size=3, skip_below=-1, **window)(x, finds_above)
    torch.testing.assert_close(some, every)
    assert every[:, 1].max() == 1
    assert 0 < sum(run) - calls < calls / 2


def test_a_window_with_nan_is_never_skipped() -> None:
    x = torch.full((1, 2, 8, 4), torch.nan)
    assert WindowInferer((4, 4), background=False, skip_below=0)(x, lambda w: w).isnan().all()


@pytest.mark.parametrize("dtype", ["float16", torch.float16])
def test_scores_may_be_summed_in_half_precision(dtype: torch.dtype | str) -> None:
    x = torch.randn(1, 1, 20, 20)
    window: dict[str, Any] = {"roi_size": (8, 8), "overlap": 0.75}
    exact, half = (WindowInferer(**window, dtype=d)(x, knows_its_window) for d in ("float32", dtype))
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), exact, atol=4e-3, rtol=0)
    best_two = exact.topk(2, dim=1).values
    sure = best_two[:, 0] - best_two[:, 1] > 8e-3
    assert torch.equal(half.argmax(1)[sure], exact.argmax(1)[sure])


def test_a_meta_tensor_comes_back_as_one_as_from_monai() -> None:
    x = MetaTensor(torch.randn(1, 1, 8, 8), affine=torch.diag(torch.tensor([2.0, 3.0, 1.0, 1.0])), meta={"name": "a"})
    ours, theirs = (inferer((4, 4), sw_batch_size=1)(x, network) for inferer in (WindowInferer, SlidingWindowInferer))
    assert isinstance(ours, MetaTensor)
    assert isinstance(theirs, MetaTensor)
    assert torch.equal(ours.affine, theirs.affine)
    assert ours.meta["name"] == "a"
    assert ours.is_batch == theirs.is_batch


def test_the_network_gets_the_further_arguments_and_plain_windows() -> None:
    def scaled(x: Tensor, factor: float, shift: float) -> Tensor:
        assert not isinstance(x, MetaTensor)
        return x * factor + shift

    x = MetaTensor(torch.randn(1, 2, 8, 8))
    scores = WindowInferer((4, 4), background=None)(x, scaled, 3.0, shift=1.0)
    torch.testing.assert_close(scores.as_tensor(), x.as_tensor() * 3 + 1)


def test_the_image_stays_as_it_is() -> None:
    x = torch.randn(1, 2, 9, 9)
    before = x.clone()
    WindowInferer((4, 4), mirror_axes=(0,))(x, lambda w: w)
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"overlap": 1.0}, "overlap is 1.0; allowed: fractions from 0 to below 1"),
        ({"overlap": (0.5, -0.1)}, "overlap is .*; allowed: fractions"),
        ({"overlap": (0.5, 0.5, 0.5)}, "overlap is .*; allowed: one, or one for each axis"),
        ({"sigma_scale": 0}, "sigma_scale is 0; allowed: fractions above 0"),
        ({"mode": "hann"}, "hann"),
        ({"padding_mode": "mean"}, "mean"),
        ({"sw_batch_size": 0}, "sw_batch_size is 0"),
        ({"slice_axis": 3}, "slice_axis is 3; allowed: 0, 1 or 2"),
        ({"neighbours": -1}, "neighbours is -1"),
        ({"mirror_axes": (0, 0)}, r"mirror_axes are \(0, 0\)"),
        ({"mirror_axes": (-1,)}, r"mirror_axes are \(-1,\)"),
        ({"dtype": "bfloat16"}, "dtype is bfloat16; allowed: float32, float16"),
        ({"skip_below": 0.0, "background": None}, "skip_below is given with background=None"),
    ],
)
def test_parameters_are_held_to_their_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WindowInferer((4, 4), **arguments)


def test_one_channel_has_no_background() -> None:
    with pytest.raises(ValueError, match="use background=False"):
        WindowInferer((4, 4))(torch.zeros(1, 1, 4, 4), lambda x: x)


@pytest.mark.parametrize(
    ("window", "axes", "message"),
    [
        ({"roi_size": (4, 4, 4)}, 2, "image has 2 spatial axes; a window of .* takes 3:"),
        ({"roi_size": (4, 4)}, 1, "image has 1 spatial axes; a window of .* takes 2 or 3:"),
        ({"roi_size": (4, 4), "neighbours": 1}, 2, "neighbours is 1, for slices of a volume"),
        ({"roi_size": (4, 4, 4), "neighbours": 1}, 3, "neighbours is 1, for slices of a volume"),
        ({"roi_size": (4, 4), "mirror_axes": (2,)}, 2, r"mirror_axes are \(2,\); the image's spatial axes are 0 to 1"),
    ],
)
def test_axes_that_do_not_fit_are_named(window: dict[str, Any], axes: int, message: str) -> None:
    x = torch.zeros(1, 1, *(8,) * axes)
    with pytest.raises(ValueError, match=message):
        WindowInferer(**window)(x, network)
    with pytest.raises(ValueError, match=message):
        WindowInferer(**window).slabs(x, network)


def test_an_output_that_is_no_map_of_its_window_is_named() -> None:
    with pytest.raises(ValueError, match=r"gives \(1, 2, 2, 2\) for windows of \(1, 2, 4, 4\)"):
        WindowInferer((4, 4))(torch.zeros(1, 2, 8, 8), lambda x: x[..., ::2, ::2])
