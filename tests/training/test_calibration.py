"""Presence thresholds: counted by hand, on the very windows of prediction, stored without touching another byte."""

import json
from collections.abc import Callable
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from monai_unetfamily.bundles import METADATA, choose_network, open_bundle, redefine_network, reset_thresholds
from monai_unetfamily.cli import main
from monai_unetfamily.data import load_cases
from monai_unetfamily.handlers import save_atomically
from monai_unetfamily.inferers import WindowInferer
from monai_unetfamily.losses import GuidedLoss
from monai_unetfamily.nets import UNet3Plus
from monai_unetfamily.prediction import predict_volume
from monai_unetfamily.training import calibrate, train
from monai_unetfamily.training.calibration import Calibration, GuideWatch, choose_threshold, describe
from tests.support.tiny import weigh

pytestmark = pytest.mark.slow

FIVE = [0.1, 0.2, 0.3, 0.4, 0.6]  # thresholds of phantom_ct's classes

Said = pytest.CaptureFixture[str]


def sigmoid(logit: float) -> float:
    return float(torch.tensor(logit, dtype=torch.float64).sigmoid())


@pytest.mark.parametrize(("recall", "missed"), [(1.0, 0), (0.999, 2), (0.9985, 3), (0.9986, 2), (0.5, 1000)])
def test_a_thousand_windows_are_counted(recall: float, missed: int) -> None:
    """Of 2000 scores in steps of 1/400 logit, recall 0.999 lets 1998 pass: the third least is the threshold."""
    scores = torch.arange(-400, 1600).double()[torch.randperm(2000)] / 400
    threshold = choose_threshold(scores, recall)
    assert threshold == pytest.approx(sigmoid((missed - 400) / 400), rel=1e-3)
    assert int((scores.sigmoid() < threshold).sum()) == missed
    assert int((scores.sigmoid() < threshold * 1.002).sum()) > missed  # none larger would do


@pytest.mark.parametrize("count", [1, 10, 999])
def test_fewer_windows_give_the_least_score_less_a_margin(count: int) -> None:
    scores = torch.linspace(2, 5, count)
    odds = sigmoid(2 - log(1000 / count))
    assert choose_threshold(scores, 0.5) == pytest.approx(odds, rel=1e-3)
    assert choose_threshold(scores, 0.5) <= odds


@pytest.mark.parametrize(("score", "threshold"), [(100.0, 0.9999), (1e6, 0.9999), (-1e6, 0.0)])
def test_scores_without_end_give_thresholds_that_work(score: float, threshold: float) -> None:
    assert choose_threshold(torch.full((1000,), score), 0.999) == threshold


class Brightness:
    """Slides windows of 4 voxels; a class is as present as its window is bright."""

    def __init__(self, roi: tuple[int, ...], **options: Any) -> None:
        self.watch = GuideWatch(lambda x: x.flatten(2).amax(2), GuidedLoss(torch.nn.Identity(), min_voxels=3), 1, 1, 2)
        self.inferer = WindowInferer(roi, overlap=0, mode="constant", **options)

    def run(self, image: Tensor, label: Tensor) -> list[tuple[float, bool, bool]]:
        self.inferer(torch.stack([image, label])[None].float(), self.watch)
        parts = ("presence", "held", "absent")
        columns = (torch.cat([getattr(w, part) for w in self.watch.seen])[:, 0].tolist() for part in parts)
        return list(zip(*columns, strict=True))


def test_windows_carry_their_reference() -> None:
    """Three windows of a row: two voxels are a sliver of neither kind, three are the class, the last is padding."""
    image = torch.arange(10.0).reshape(1, 10).expand(4, 10)
    label = torch.zeros(4, 10)
    label[0, :2], label[1:, 5] = 1, 1
    assert Brightness((4, 4)).run(image, label) == [(3.0, False, False), (6.0, True, False), (9.0, False, True)]


def test_slices_with_neighbours_are_judged_by_the_middle_one() -> None:
    image = torch.arange(3.0).expand(4, 4, 3)
    label = torch.zeros(4, 4, 3)
    label[:, :, 1] = 1
    watch = Brightness((4, 4), neighbours=1)
    assert watch.run(image, label) == [(0.0, False, True), (0.0, True, False), (1.0, False, True)]
    assert [w.presence.tolist() for w in watch.watch.seen] == [[[0.0, 0.0, 1.0]], [[0.0, 1.0, 2.0]], [[1.0, 2.0, 2.0]]]


def metadata_of(bundle: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((bundle / "configs" / METADATA).read_text())
    return content


def test_the_windows_are_those_of_prediction(bundle: Path, phantoms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    encode = UNet3Plus.encode
    monkeypatch.setattr(UNet3Plus, "encode", lambda net, x: (seen.append(x.clone()), encode(net, x))[1])
    cases = load_cases(phantoms, "validation")
    opened = open_bundle(bundle, torch.device("cpu"))
    for case in cases:
        predict_volume(opened, Path(case["image"]))
    predicted = torch.cat(seen)
    seen.clear()
    calibrate(bundle, phantoms, device="cpu")
    assert torch.equal(torch.cat(seen), predicted)


def test_calibrates_once_and_again_and_leaves_the_rest_of_the_file(bundle: Path, phantoms: Path, capsys: Said) -> None:
    file = bundle / "configs" / METADATA
    file.write_text(json.dumps(metadata_of(bundle), indent=2))
    before = file.read_text()
    arguments = ["calibrate", str(bundle), "--dataset", str(phantoms), "--device", "cpu"]
    assert main(arguments) == 0
    after = file.read_text()
    said = capsys.readouterr().out
    thresholds = metadata_of(bundle)["networks"]["unet3plus"]["presence_threshold"]
    assert len(thresholds) == 5
    stored = json.loads(after)
    del stored["networks"]["unet3plus"]["presence_threshold"]
    assert stored == json.loads(before)
    assert f"{thresholds[0]:.4g} | 100.00% |" in said
    assert "fewer than 1000 windows" in said
    assert main(arguments) == 0
    assert file.read_text() == after
    network = open_bundle(bundle, torch.device("cpu")).network
    assert network.cgm.threshold.tolist() == torch.tensor(thresholds).tolist()  # type: ignore[union-attr]


def test_a_class_that_no_window_holds_keeps_its_threshold(bundle: Path, phantoms: Path) -> None:
    """GuidedLoss is told that everything is a sliver."""
    config = bundle / "configs/train.yaml"
    loss = "_target_: monai_unetfamily.losses.GuidedLoss\n"
    config.write_text(config.read_text().replace(loss, f"{loss}  min_voxels: 1000000\n"))
    redefine_network(bundle, {"presence_threshold": FIVE})
    found = calibrate(bundle, phantoms, device="cpu")
    stored = metadata_of(bundle)["networks"]["unet3plus"]["presence_threshold"]
    assert stored == FIVE
    assert all(c.held == 0 for c in found.classes)
    lines = describe(found, 0.999)
    assert "in no window, so the threshold stays: liver, spleen, left_kidney, right_kidney, spine" in lines
    assert "nan" not in "".join(lines)


def test_an_exit_is_a_window_in_which_no_class_passes(bundle: Path, phantoms: Path) -> None:
    found = calibrate(bundle, phantoms, device="cpu")
    assert isinstance(found, Calibration)
    opened = open_bundle(bundle, torch.device("cpu"))
    exits: list[bool] = []
    guide = opened.network.cgm
    guide.register_forward_hook(lambda g, x, presence: exits.extend(g.absent(presence).all(dim=1).tolist()))  # type: ignore[operator,union-attr]
    for case in load_cases(phantoms, "validation"):
        predict_volume(opened, Path(case["image"]))
    assert found.windows == len(exits)
    assert found.exits == pytest.approx(sum(exits) / len(exits))


def test_overlapping_classes(overlapping_bundle: Path, overlapping_phantoms: Path) -> None:
    found = calibrate(overlapping_bundle, overlapping_phantoms, device="cpu")
    assert [c.name for c in found.classes] == ["organs", "liver"]
    assert all(c.held for c in found.classes)


def test_pictures(bundle_2d: Path, pictures: Path) -> None:
    found = calibrate(bundle_2d, pictures, device="cpu")
    assert found.windows >= len(load_cases(pictures, "validation"))


def unguided(bundle: Path) -> None:
    choose_network(bundle, "unetplusplus")
    weigh(bundle)


def other_loss(bundle: Path) -> None:
    config = bundle / "configs/train.yaml"
    config.write_text(f"{config.read_text().replace('loss:', 'was:', 1)}\nloss: {{_target_: DiceLoss}}\n")


def other_spacing(bundle: Path) -> None:
    config = bundle / "configs/train.yaml"
    config.write_text(config.read_text().replace("spacing: [12.0, 12.0, 12.0]", "spacing: [10.0, 12.0, 12.0]"))


def damaged(bundle: Path, value: float = torch.nan) -> None:
    file = bundle / "models/model.pt"
    weights = torch.load(file, weights_only=True)
    next(weight for weight in weights.values() if weight.ndim == 5).fill_(value)
    save_atomically(weights, file)


def overflowing(bundle: Path) -> None:
    """Finite itself, its scores are not."""
    damaged(bundle, 3e38)


@pytest.mark.parametrize(
    ("spoil", "recall", "message"),
    [
        (damaged, 0.999, "model.pt: holds numbers that are not finite"),
        (overflowing, 0.999, "not finite: its weights are damaged"),
        (unguided, 0.999, "UNetPlusPlus without a classification-guided module"),
        (other_loss, 0.999, "its loss is DiceLoss; a GuidedLoss says"),
        (other_spacing, 0.999, "see other images of it .* configs agree"),
        (lambda bundle: None, 1.5, "recall is 1.5; more than 0 and at most 1"),
        (lambda bundle: (bundle / "models/model.pt").unlink(), 0.999, "no weights there"),
    ],
)
def test_what_cannot_be_calibrated_is_said_and_changes_nothing(
    bundle: Path, phantoms: Path, spoil: Callable[[Path], None], recall: float, message: str
) -> None:
    spoil(bundle)
    before = (bundle / "configs" / METADATA).read_text()
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        calibrate(bundle, phantoms, recall=recall, device="cpu")
    assert (bundle / "configs" / METADATA).read_text() == before


def test_training_ends_with_it_and_a_copy_begins_without(untrained: Path, phantoms: Path, tmp_path: Path) -> None:
    redefine_network(untrained, {"presence_threshold": FIVE})
    said: list[str] = []
    train(untrained, phantoms, output=tmp_path / "new", minutes=0.001, device="cpu", log=said.append)
    assert any(line.startswith("| liver ") for line in said)
    stored = metadata_of(tmp_path / "new")["networks"]["unet3plus"]["presence_threshold"]
    assert len(stored) == 5
    reset_thresholds(tmp_path / "new")
    assert metadata_of(tmp_path / "new")["networks"]["unet3plus"]["presence_threshold"] == 0.5


def test_thresholds_are_stored_in_the_network_that_is_chosen(untrained: Path) -> None:
    metadata = metadata_of(untrained)
    for place in ("networks", "network"):
        if place == "network":
            metadata["network"] = metadata["networks"]["unet3plus"]
        (untrained / "configs" / METADATA).write_text(json.dumps(metadata))
        redefine_network(untrained, {"presence_threshold": FIVE})
        changed = metadata_of(untrained)
        network = changed["network"] if place == "network" else changed["networks"]["unet3plus"]
        assert network.pop("presence_threshold") == FIVE
        assert changed == metadata
