"""The sliding window against MONAI's own, and the laws of slices and neighbours."""

import pytest
import torch
from monai.inferers import SlidingWindowInferer
from torch import Tensor

from monai_unetfamily.inference.inferer import WindowInferer, stack_neighbours


def network(x: Tensor) -> Tensor:
    return torch.cat([x, 2 * x, -x], dim=1)


@pytest.mark.parametrize("size", [(9, 8, 7), (4, 20, 6)])
def test_equals_monai_on_softmax_of_windows(size: tuple[int, ...]) -> None:
    x = torch.randn(1, 1, *size)
    window = {"roi_size": (5, 6, 4), "overlap": 0.25, "mode": "gaussian", "sw_batch_size": 2}
    reference = SlidingWindowInferer(**window)(x, lambda w: network(w).softmax(1))  # type: ignore[arg-type]
    torch.testing.assert_close(WindowInferer(**window)(x, network), reference)  # type: ignore[arg-type]


def test_probabilities_sum_to_one_with_background_and_are_free_without() -> None:
    x = torch.randn(1, 1, 9, 9)
    torch.testing.assert_close(WindowInferer((4, 4))(x, network).sum(1), torch.ones(1, 9, 9))
    torch.testing.assert_close(WindowInferer((4, 4), background=False)(x, network), network(x).sigmoid())


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
def test_neighbours_are_the_slices_before_and_after(axis: int) -> None:
    x = torch.randn(1, 2, 5, 6, 7)
    stacked = stack_neighbours(x, axis, 2)
    assert stacked.shape == (1, 10, 5, 6, 7)
    for shift in range(-2, 3):
        channels = stacked[:, 2 * (shift + 2) : 2 * (shift + 2) + 2]
        for z in range(x.shape[axis + 2]):
            source = min(max(z + shift, 0), x.shape[axis + 2] - 1)
            assert torch.equal(channels.select(axis + 2, z), x.select(axis + 2, source))


def test_a_25d_network_sees_its_neighbours() -> None:
    x = torch.randn(1, 1, 4, 4, 6)

    def middle_minus_previous(w: Tensor) -> Tensor:
        assert w.shape[1] == 3
        return w[:, 1:2] - w[:, 0:1]

    scores = WindowInferer((4, 4), background=False, neighbours=1)(x, middle_minus_previous)
    expected = torch.diff(x, dim=-1, prepend=x[..., :1]).sigmoid()
    torch.testing.assert_close(scores, expected)


def test_one_channel_has_no_background() -> None:
    with pytest.raises(ValueError, match="use background=False"):
        WindowInferer((4, 4))(torch.zeros(1, 1, 4, 4), lambda x: x)


def test_axes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="image has 2 spatial axes; a window of .* takes 3:"):
        WindowInferer((4, 4, 4))(torch.zeros(1, 1, 8, 8), network)
