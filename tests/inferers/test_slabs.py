"""Finished slabs: they cover the volume in order, need a window's planes of memory, report and stop."""

from typing import Any

import pytest
import torch
from torch import Tensor

from monai_unetfamily.inferers import Slab, WindowInferer
from monai_unetfamily.nets.profiling import _Lifetimes

WINDOWS: list[dict[str, Any]] = [
    {"roi_size": (6, 5, 4), "overlap": 0.5},
    {"roi_size": (6, 5, 4), "overlap": 0.8, "sw_batch_size": 5, "mirror_axes": (1,)},
    {"roi_size": (40, 5, 4), "sw_batch_size": 2},
    {"roi_size": (5, 4), "slice_axis": 0, "neighbours": 1, "sw_batch_size": 4},
]


def network(x: Tensor) -> Tensor:
    return torch.cat([x[:, :1], x.mean(dim=1, keepdim=True) ** 2, -x[:, -1:]], dim=1)


@pytest.mark.slow
@pytest.mark.parametrize("axis", [None, 0, 1, 2])
@pytest.mark.parametrize("window", WINDOWS)
def test_slabs_cover_the_volume_once_in_order_and_equal_the_whole(window: dict[str, Any], axis: int | None) -> None:
    x = torch.randn(2, 1, 21, 12, 9)
    inferer = WindowInferer(**window)
    slabs = list(inferer.slabs(x, network, axis))  # kept: no slab changes when later ones come
    along = axis if axis is not None else next(a for a in range(3) if slabs[0].scores.shape[a + 2] == 0)
    planes = [z for slab in slabs for z in range(slab.where[along].start, slab.where[along].stop)]
    assert planes == list(range(x.shape[along + 2]))
    assert all(s.scores.shape == (2, 3, *(w.stop - w.start for w in s.where)) for s in slabs)
    whole = torch.cat([slab.scores for slab in slabs], dim=along + 2)
    torch.testing.assert_close(whole, inferer(x, network), atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("axis", [None, 0, 1, 2])
@pytest.mark.parametrize("window", [*WINDOWS, {"roi_size": (6, 5, 4), "skip_below": 2}, {"roi_size": (48, 5, 4)}])
def test_of_a_part_slabs_scores_and_batches_are_those_of_the_whole(window: dict[str, Any], axis: int | None) -> None:
    x, inferer = torch.randn(1, 1, 91, 12, 9), WindowInferer(**window)
    part = (slice(80, 83), slice(8, 9), slice(3, 4))
    runs: list[list[Slab]] = []
    batches: list[list[bytes]] = []
    for wanted in (None, part):
        seen: list[bytes] = []
        slabs = inferer.slabs(x, lambda w, seen=seen: seen.append(w.numpy().tobytes()) or network(w), axis, wanted)  # type: ignore[misc,func-returns-value]
        runs.append([slab for slab in slabs if slab.scores.numel()])
        batches.append(seen)
    whole, ours = runs
    assert [slab.where for slab in ours] == [slab.where for slab in whole]
    along = whole[0].axis + 2
    scores = [torch.cat([slab.scores for slab in run], dim=along)[:, :, *part] for run in runs]
    assert torch.equal(*scores)
    assert set(batches[1]) < set(batches[0])
    assert ours[-1].done == ours[-1].total < whole[-1].total


@pytest.mark.parametrize("window", WINDOWS)
def test_every_batch_of_windows_is_reported(window: dict[str, Any]) -> None:
    calls: list[int] = []
    reports: list[int] = []
    slabs: list[Slab] = []
    for slab in WindowInferer(**window).slabs(
        torch.randn(1, 1, 21, 12, 9),
        lambda x: calls.append(len(x)) or network(x),  # type: ignore[func-returns-value]
    ):
        slabs.append(slab)
        if not slab.scores.numel():
            reports.append(slab.done)
            assert slab.done == sum(calls)
    assert len(reports) == len(calls)
    assert [slab.done for slab in slabs] == sorted(slab.done for slab in slabs)
    assert slabs[-1].done == slabs[-1].total == sum(calls)


def test_a_closed_generator_calls_the_network_no_more() -> None:
    calls: list[int] = []
    slabs = WindowInferer((4, 4), sw_batch_size=2).slabs(
        torch.randn(1, 1, 40, 4),
        lambda x: calls.append(1) or network(x),  # type: ignore[func-returns-value]
    )
    assert calls == []
    next(slabs)
    next(slabs)
    slabs.close()
    assert len(calls) <= 2
    assert next(slabs, None) is None


def peak(length: int, axis: int, **window: Any) -> int:
    """The most bytes that tensors take at once while labels are taken out of slabs; the image and labels left out."""
    size = [8, 8, 8]
    size[axis] = length
    x, labels = torch.randn(1, 1, *size), torch.zeros(1, *size, dtype=torch.uint8)
    with _Lifetimes(torch.nn.Identity()) as lifetimes:
        for slab in WindowInferer(roi_size=(8, 8, 8), **window).slabs(x, lambda w: w.expand(-1, 50, -1, -1, -1)):
            labels[:, *slab.where] = slab.scores.argmax(dim=1).to(torch.uint8)
    return lifetimes.peak(without=[x, labels])


@pytest.mark.slow
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_memory_does_not_grow_with_the_volume(axis: int) -> None:
    scores = 50 * 8**3 * 4  # of one window
    assert peak(400, axis) == peak(100, axis) < 5 * scores
    assert peak(100, axis, dtype="float16") < peak(100, axis)


def test_gradients_are_not_kept() -> None:
    weight = torch.ones(1, requires_grad=True)
    slabs = list(WindowInferer((4, 4)).slabs(torch.randn(1, 2, 8, 8), lambda x: x * weight))
    assert not any(slab.scores.requires_grad for slab in slabs)
    assert torch.is_grad_enabled()


def test_an_axis_that_the_image_lacks_is_named() -> None:
    with pytest.raises(ValueError, match="axis is 2; the image's spatial axes are 0 to 1"):
        WindowInferer((4, 4)).slabs(torch.zeros(1, 1, 8, 8), network, axis=2)
