"""An ensemble is the mean of its members' probabilities; what cannot be averaged is refused in one line."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms import Rotated
from torch import Tensor

from monai_unetfamily.bundles import Bundle, open_bundle
from monai_unetfamily.prediction import check_ensemble, segment
from monai_unetfamily.prediction.prediction import predict_image, prepare
from tests.prediction.test_resample import GRIDS, WAYS, Smooth, agree, by_slabs, monais, opened, volume

CPU = torch.device("cpu")


class Mean(torch.nn.Module):
    """Logits whose softmax, or sigmoid, is the mean of the members'."""

    def __init__(self, members: list[Bundle], background: bool) -> None:
        super().__init__()
        self.members, self.background = members, background

    def forward(self, x: Tensor) -> Tensor:
        logits = [member.network(x) for member in self.members]
        if self.background:
            return torch.stack([each.softmax(1) for each in logits]).mean(0).log()
        return torch.stack([each.sigmoid() for each in logits]).mean(0).logit()


@pytest.mark.slow
@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("way", ["up- and downsampled", "foreground"])
def test_labels_are_those_of_the_mean_of_probabilities(way: str, overlap: bool) -> None:
    first = opened(WAYS[way], overlap=overlap, mirror_axes=(0,), sw_batch_size=3)
    members = [first] + [replace(first, network=Smooth(4 + 100 * fold)) for fold in (1, 2)]
    for member in members[1:]:
        member.network.conv = torch.nn.Conv3d(1, 4, 3, padding=1)
        torch.nn.init.normal_(member.network.conv.weight, std=3)
    for grid in ("PIL", "oblique"):
        image = volume((9, 14, 11), GRIDS[grid])
        ours = by_slabs(members, image)
        agree(ours, monais(replace(first, network=Mean(members, not overlap)), image))
        assert not np.array_equal(ours, by_slabs(first, image))


@pytest.mark.parametrize("way", [WAYS["up- and downsampled"], [Rotated("image", 0.2)]])
def test_the_same_member_twice_is_itself(way: list[Any]) -> None:
    bundle, image = opened(way), volume((9, 14, 11), GRIDS["LPS"])
    twice, once = (predict_image(which, image.clone()) for which in ([bundle, bundle], bundle))
    agree(twice, once)


def copied(bundle: Path, name: str, **changes: str) -> Path:
    copy = bundle.parent / name
    shutil.copytree(bundle, copy)
    file = copy / "configs/inference.yaml"
    text = file.read_text()
    for before, after in changes.values():
        assert before in text
        text = text.replace(before, after)
    file.write_text(text)
    return copy


@pytest.mark.slow
def test_what_differs_is_named(bundle: Path) -> None:
    said: list[str] = []
    first = open_bundle(bundle, CPU)
    written_out = copied(bundle, "b", spacing=('"@spacing"', "[12.0, 12.0, 12.0]"))  # type: ignore[arg-type]
    check_ensemble([first, open_bundle(written_out, CPU)], said.append)
    assert said == []
    windows = copied(bundle, "c", overlap=("overlap: 0.25", "overlap: 0.5"))  # type: ignore[arg-type]
    check_ensemble([first, open_bundle(windows, CPU)], said.append)
    assert len(said) == 1
    assert "has another inferer than" in said[0]
    other = copied(bundle, "d", spacing=("spacing: [12.0, 12.0, 12.0]", "spacing: [12.0, 12.0, 9.0]"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"d: its preprocessing has .*9\.0.* where .*bundle has .*12\.0"):
        check_ensemble([first, open_bundle(other, CPU)], said.append)
    named = replace(first, names={0: "background", 1: "spleen"})
    with pytest.raises(ValueError, match="names classes .*spleen"):
        check_ensemble([first, named], said.append)


class Hungry(torch.nn.Module):
    """A network on a GPU whose memory holds so many windows; and that, at first, not even beside the scores."""

    def __init__(self, network: torch.nn.Module, windows: int, refusals: int = 0) -> None:
        super().__init__()
        self.network, self.windows, self.refusals, self.seen = network, windows, refusals, []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        if len(x) > self.windows or (len(x) == 1 and self.refusals > 0):
            self.refusals -= len(x) == 1
            raise torch.OutOfMemoryError("CUDA out of memory.")
        out: Tensor = self.network(x)
        return out


def test_out_of_memory_the_batch_is_halved_then_scores_go_to_the_cpu_each_said_once() -> None:
    bundle, image, said = opened(WAYS["up- and downsampled"], sw_batch_size=4), volume((9, 14, 11), GRIDS["PIL"]), []
    expected = by_slabs(bundle, image)
    hungry = replace(bundle, network=Hungry(bundle.network, windows=1, refusals=1))
    for _ in range(2):
        agree(predict_image(hungry, image.clone(), log=said.append), expected)
    assert [line.split(": ", 1)[1] for line in said] == [
        "from now on windows are run 2 at once.",
        "from now on windows are run 1 at once.",
        "from now on scores are summed on the CPU, windows run as before.",
    ]
    assert bundle.inferer.device == "cpu"
    assert bundle.inferer.sw_device == bundle.device


def test_a_gpu_that_holds_no_window_is_an_error_and_no_change_of_device() -> None:
    bundle = opened(WAYS["nothing"], sw_batch_size=2)
    hungry = replace(bundle, network=Hungry(bundle.network, windows=0))
    with pytest.raises(MemoryError, match="out of memory with one window of .* smaller roi_size, or --device cpu"):
        predict_image(hungry, volume((9, 14, 11), GRIDS["RAS"]), log=lambda line: None)


@pytest.mark.parametrize("way", ["up- and downsampled", "foreground", "resized by areas"])
@pytest.mark.parametrize("overlap", [False, True])
def test_all_scores_are_given_to_the_sink_and_make_the_labels(way: str, overlap: bool) -> None:
    bundle, image = opened(WAYS[way], overlap=overlap), volume((9, 14, 11), GRIDS["oblique"])
    scores = np.full((*image.shape[1:], 4), np.nan, np.float32)

    def sink(where: tuple[slice, ...], channel: int, part: np.ndarray) -> None:
        scores[(*where, channel)] = part

    ours = by_slabs(bundle, image, sink=sink)
    assert np.array_equal(ours, scores >= 0.6 if overlap else scores.argmax(-1))
    whole = scores.copy()
    scores[:] = np.nan
    plain = replace(bundle, inferer=lambda x, network: bundle.inferer(x, network))
    agree(predict_image(plain, image.clone(), log=lambda line: None, sink=sink), ours)
    np.testing.assert_allclose(whole, scores, atol=1e-5)


def test_a_volume_with_its_header_and_a_picture_are_images_too() -> None:
    import nibabel as nib

    from monai_unetfamily.io import Image

    bundle, tensor = opened(WAYS["up- and downsampled"]), volume((9, 14, 11), GRIDS["PIL"])
    grid = nib.Nifti1Image(np.zeros((9, 14, 11), np.int16), GRIDS["PIL"])
    image = Image(tensor.numpy().astype(np.float32), grid)
    assert np.array_equal(predict_image(bundle, image), by_slabs(bundle, tensor))
    flat = opened([], roi=(8, 9))
    picture = Image(tensor.numpy()[..., 4], None)
    assert list(segment(flat, prepare(flat, picture)))[-1].labels.shape == (9, 14)
    assert isinstance(prepare(flat, picture).image, MetaTensor)
