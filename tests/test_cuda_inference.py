"""Prediction on CUDA, from the sliding window to labels in NumPy, by tensors that have a device and no values.

What these tests can see, and what they cannot, is said in test_cuda_devices.py. Here also: MONAI's own transforms of a
postprocessing that is not undone axis by axis run on the CPU and are replaced; the early exit is in
test_cuda_devices.py.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.inferers import SlidingWindowInferer
from numpy.typing import NDArray
from torch import Tensor

from monai_unetfamily.bundles import Bundle, open_bundle, training_part
from monai_unetfamily.data import find_studies, load_cases
from monai_unetfamily.inferers import WindowInferer
from monai_unetfamily.prediction import Case, Settings, adapt, load_case, prediction, segment, watch_guides
from monai_unetfamily.prediction.resample import NotSeparable
from monai_unetfamily.training import LEARNED_BY
from monai_unetfamily.training.calibration import watch_windows
from tests.support.cuda_stand_in import CPU, CUDA, assert_like_on_the_cpu, stand_ins

INFERERS: dict[str, tuple[dict[str, Any], tuple[int, ...], Sequence[bool]]] = {
    "2-D": ({"roi_size": (8, 8), "mirror_axes": (0,)}, (11, 14), [True]),
    "3-D": ({"roi_size": (8, 8, 4), "sw_batch_size": 3, "mode": "constant"}, (5, 11, 14), [True]),
    "no background": ({"roi_size": 4, "background": False}, (6, 7), [True]),
    "logits": ({"roi_size": 4, "background": None, "dtype": "float16"}, (6, 7), [True]),
    "slices with neighbours": ({"roi_size": (8, 8), "neighbours": 1, "slice_axis": 0}, (4, 9, 8), [True]),
    "windows skipped": ({"roi_size": (4, 4), "skip_below": 0.5}, (12, 9), [True, False]),
}


def three_classes(x: Tensor) -> Tensor:
    return torch.cat([x[:, :1], -x[:, :1], 2 * x[:, :1]], dim=1)


@pytest.mark.parametrize("name", INFERERS)
def test_inferer(name: str) -> None:
    """Scores of the whole and of an ensemble's slabs."""
    options, size, answers = INFERERS[name]
    inferer = WindowInferer(**options)

    def run(device: torch.device) -> Any:
        x = torch.zeros(2, 1, *size).to(device)
        part = [slice(1, n - 1) for n in size]
        slabs = list(inferer.slabs(x, [three_classes, three_classes], part=part))
        return inferer(x, three_classes), [slab.scores for slab in slabs]

    on_cpu = run(CPU)
    with stand_ins(answers):
        assert_like_on_the_cpu(run(CUDA), on_cpu)


def test_scores_are_summed_where_the_inferer_says() -> None:
    """As when a GPU's memory is short: the image and its scores on the CPU, the network on the GPU."""
    inferer = WindowInferer((4, 4), device="cpu", sw_device=CUDA, mirror_axes=(1,), sw_batch_size=2)
    seen: set[torch.device] = set()

    def network(x: Tensor) -> Tensor:
        seen.add(x.device)
        return three_classes(x)

    with stand_ins():
        scores = inferer(torch.zeros(1, 1, 6, 7), network)
        slabs = [slab.scores for slab in inferer.slabs(torch.zeros(1, 1, 6, 7), network)]
    assert seen == {CUDA}
    assert {scores.device, *(each.device for each in slabs)} == {CPU}


def opened(root: Path) -> Bundle:
    return open_bundle(root, CPU)


def on_cuda(bundle: Bundle) -> Bundle:
    return replace(bundle, device=CUDA, network=bundle.network.to(CUDA))


def segmented(bundle: Bundle, case: Case) -> tuple[Any, list[Any]]:
    """Labels of an ensemble and the scores on the way, but for their values."""
    told: list[Any] = []

    def sink(where: tuple[slice, ...], c: int, scores: NDArray[np.float32]) -> None:
        told.append((where, c, scores.shape, scores.dtype))

    *_, last = segment([bundle, bundle], case, sink=sink)
    return (last.labels.shape, last.labels.dtype), told


BUNDLES = ["bundle", "bundle_2d", "overlapping_bundle"]


@pytest.mark.slow
@pytest.mark.parametrize("name", BUNDLES)
def test_segmentation(name: str, phantoms: Path, pictures: Path, request: pytest.FixtureRequest) -> None:
    """Labels and scores on the source grid come back as arrays."""
    bundle = opened(request.getfixturevalue(name))
    images = (pictures if name == "bundle_2d" else phantoms) / "imagesTr"
    _, case = load_case(bundle, find_studies([sorted(images.iterdir())[0]]).studies[0])
    expected = segmented(bundle, case)
    with stand_ins():
        assert segmented(on_cuda(bundle), case) == expected


def first_case(bundle: Bundle, phantoms: Path) -> Case:
    return load_case(bundle, find_studies([sorted((phantoms / "imagesTr").iterdir())[0]]).studies[0])[1]


@pytest.mark.slow
@pytest.mark.parametrize("inferer", [WindowInferer((24, 24, 12)), SlidingWindowInferer((24, 24, 12))])
def test_whole_volume_goes_to_the_cpu(
    inferer: Any, bundle: Path, phantoms: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the bundle's own postprocessing is needed, which begins with scores on the CPU."""
    given: list[Tensor] = []
    monkeypatch.setattr(prediction, "rule_of", raises_not_separable)
    monkeypatch.setattr(prediction, "labels_of", lambda bundle, image, scores, *_: given.append(scores))
    opened_bundle = replace(opened(bundle), inferer=inferer)
    case = first_case(opened_bundle, phantoms)
    with stand_ins():
        list(segment(on_cuda(opened_bundle), case))
    [scores] = given
    assert (scores.device, scores.shape) == (CPU, (6, *case.image.shape[1:]))


def raises_not_separable(_: Bundle) -> None:
    raise NotSeparable("a test")


@pytest.mark.slow
def test_presence_of_a_case(bundle: Path, phantoms: Path) -> None:
    """The guide's thresholds that a user sets, and what it says of the whole case."""
    guided = opened(bundle)
    case = first_case(guided, phantoms)
    with stand_ins():
        guided = adapt(on_cuda(guided), Settings(presence={"liver": 0.2}))
        with watch_guides([guided.network]) as presence:
            list(segment(guided, case))
        assert list(presence.probabilities()) == [1, 2, 3, 4, 5]


@pytest.mark.slow
def test_windows_of_a_calibration(bundle: Path, phantoms: Path) -> None:
    """What the guide says of windows on the device, and what these hold, is compared on the CPU."""
    guided, cases = opened(bundle), load_cases(phantoms, "validation")
    loss, load = (training_part(bundle, part) for part in LEARNED_BY)
    watch: Any = vars(watch_windows)["__wrapped__"]  # without inference mode: a stand-in cannot be sliced there

    def run(bundle: Bundle) -> Any:
        network: Any = bundle.network
        with torch.no_grad():
            return watch(bundle, lambda x: network.cgm(network.encode(x)[-1]), loss, load, cases, print)

    on_cpu = vars(run(guided))
    with stand_ins():
        found = vars(run(on_cuda(guided)))
    for part, tensor in found.items():
        assert (tensor.device, tensor.shape, tensor.dtype) == (CPU, on_cpu[part].shape, on_cpu[part].dtype)
