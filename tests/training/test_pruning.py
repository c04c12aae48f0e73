"""A pruned bundle is the full one's head, whatever the door; what it was chosen by is what its user gets."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from torch import Tensor, nn

from monai_unetfamily.bundles import METADATA, WEIGHTS, choose_network, open_bundle
from monai_unetfamily.cli import main
from monai_unetfamily.data import load_cases, read_label_names
from monai_unetfamily.evaluation import evaluate_folders, summarize
from monai_unetfamily.nets import UNetPlusPlus
from monai_unetfamily.prediction import predict_volume
from monai_unetfamily.training import format_levels, prune, train
from monai_unetfamily.training.pruning import Level, choose_level
from tests.support.runs import predict
from tests.support.tiers import sampled
from tests.support.tiny import weigh

Said = pytest.CaptureFixture[str]
CPU = torch.device("cpu")
NESTED = ["unetplusplus", "unet_plus", "unet_e"]


class Head(nn.Module):
    """One head of a nested network."""

    def __init__(self, network: nn.Module, level: int) -> None:
        super().__init__()
        self.network, self.level = network, level

    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(self.network, UNetPlusPlus)
        return self.network.side_outputs(x)[self.network.levels - self.level]


def nested(bundle: Path, name: str = "unetplusplus", /, **options: Any) -> Path:
    """The bundle with a nested network of three levels and random weights."""
    choose_network(bundle, name)
    file = bundle / "configs" / METADATA
    metadata = json.loads(file.read_text())
    metadata["networks"][name] |= {"features": [4, 6, 8, 10], "deep_supervision": True} | options
    file.write_text(json.dumps(metadata))
    return weigh(bundle)


@pytest.fixture
def full(untrained_2d: Path) -> Path:
    return nested(untrained_2d)


def weights_of(bundle: Path) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = torch.load(bundle / "models" / WEIGHTS, weights_only=True)
    return weights


def definition_of(bundle: Path) -> dict[str, Any]:
    metadata = json.loads((bundle / "configs" / METADATA).read_text())
    definition: dict[str, Any] = metadata["networks"][metadata["network"].rpartition("#")[2]]
    return definition


@pytest.mark.slow
@pytest.mark.parametrize("name", sampled(NESTED, "unetplusplus"))
@pytest.mark.parametrize("dims", sampled([2, 3], 3))
def test_predicts_what_the_head_of_the_full_network_predicts(
    untrained: Path, untrained_2d: Path, phantoms: Path, pictures: Path, tmp_path: Path, dims: int, name: str
) -> None:
    source = nested({2: untrained_2d, 3: untrained}[dims], name)
    image = sorted(({2: pictures, 3: phantoms}[dims] / "imagesTr").iterdir())[4]
    opened = open_bundle(source, CPU)
    for level in (1, 2, 3):
        new = tmp_path / f"level_{level}"
        prune(source, new, level=level, device="cpu")
        labels = predict_volume(open_bundle(new, CPU), image)
        np.testing.assert_array_equal(
            labels, predict_volume(replace(opened, network=Head(opened.network, level)), image)
        )
        assert len(np.unique(labels)) > 1


@pytest.mark.slow
def test_monai_builds_it_from_the_configs_alone(full: Path, tmp_path: Path) -> None:
    prune(full, tmp_path / "new", level=2, device="cpu")
    for config in ("inference", "train"):
        parser = ConfigParser()
        parser.read_config(tmp_path / "new/configs" / f"{config}.yaml")
        parser.read_meta(tmp_path / "new/configs" / METADATA)
        network = parser.get_parsed_content("network_def")
        network.load_state_dict(weights_of(tmp_path / "new"))
        assert network.levels == 2


@pytest.mark.slow
def test_only_definition_weights_and_card_differ(full: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    prune(full, new, level=2, device="cpu")
    files = {file.relative_to(full) for file in full.rglob("*") if file.is_file()}
    assert {file.relative_to(new) for file in new.rglob("*") if file.is_file()} == files
    changed = {str(file) for file in files if (full / file).read_bytes() != (new / file).read_bytes()}
    assert changed == {f"configs/{METADATA}", f"models/{WEIGHTS}", "docs/README.md"}
    before, after = (json.loads((bundle / "configs" / METADATA).read_text()) for bundle in (full, new))
    before["networks"]["unetplusplus"] |= {"features": [4, 6, 8], "mode": "fast"}
    assert after == before


@pytest.mark.slow
def test_strides_and_kernels_are_cut_where_they_are_lists(untrained_2d: Path, tmp_path: Path) -> None:
    source = nested(untrained_2d, strides=[1, 2, [2, 1]], kernel_size=[[1, 3], 3, 3, 3], mode="accurate")
    prune(source, tmp_path / "new", level=2, device="cpu")
    cut = definition_of(tmp_path / "new")
    assert (cut["strides"], cut["kernel_size"]) == ([[1, 1], [2, 2]], [[1, 3], [3, 3], [3, 3]])
    assert cut["mode"] == "fast"
    open_bundle(tmp_path / "new", CPU)


def test_the_papers_preset_stays(untrained_2d: Path, tmp_path: Path) -> None:
    target = {"_target_": "monai_unetfamily.nets.create_network", "name": "unet_plus", "preset": "paper"}
    prune(nested(untrained_2d, "unet_plus", **target), tmp_path / "new", level=1, device="cpu")
    assert definition_of(tmp_path / "new")["preset"] == "paper"
    open_bundle(tmp_path / "new", CPU)


@pytest.mark.slow
@pytest.mark.parametrize("name", NESTED)
def test_cost_falls_with_the_level(untrained_2d: Path, tmp_path: Path, name: str) -> None:
    source = nested(untrained_2d, name)
    levels = prune(source, tmp_path / "new", level=2, device="cpu")
    assert [each.level for each in levels] == [1, 2, 3]
    for figure in ("parameters", "macs"):
        one, two, three = (getattr(each, figure) for each in levels)
        assert one < two < three
    kept = [
        sum(p.numel() for p in open_bundle(bundle, CPU).network.parameters()) for bundle in (tmp_path / "new", source)
    ]
    assert [levels[1].parameters, levels[2].parameters] == kept


@pytest.mark.slow
def test_cut_twice_is_cut_once(full: Path, tmp_path: Path) -> None:
    prune(full, tmp_path / "two", level=2, device="cpu")
    prune(tmp_path / "two", tmp_path / "two_one", level=1, device="cpu")
    prune(full, tmp_path / "one", level=1, device="cpu")
    weights, expected = weights_of(tmp_path / "two_one"), weights_of(tmp_path / "one")
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[key], expected[key]) for key in expected)
    assert definition_of(tmp_path / "two_one") == definition_of(tmp_path / "one")


@pytest.mark.slow
def test_is_trained_on_as_a_copy(full: Path, pictures: Path, tmp_path: Path, capsys: Said) -> None:
    new, further = tmp_path / "new", tmp_path / "further"
    prune(full, new, level=2, device="cpu")
    assert main(["train", str(new), "--dataset", str(pictures), "--resume"]) == 2
    assert "nothing to resume from" in capsys.readouterr().err
    train(new, pictures, output=further, init_from=new, minutes=0.001, device="cpu")
    prune(further, tmp_path / "again", level=1, device="cpu")
    assert weights_of(tmp_path / "again").keys() < weights_of(further).keys()


@pytest.mark.slow
def test_dice_is_what_predict_and_evaluate_give(full: Path, pictures: Path, tmp_path: Path) -> None:
    said: list[str] = []
    levels = prune(full, tmp_path / "new", dataset=pictures, tolerance=1.0, device="cpu", log=said.append)
    cases = load_cases(pictures, "validation")
    assert [level.kept for level in levels] == [True, False, False]
    assert len([line for line in said if ", level " in line]) == 3 * len(cases)
    case_results = predict(open_bundle(tmp_path / "new", CPU), [Path(c["image"]) for c in cases], tmp_path / "labels")
    assert all(case_result.error is None for case_result in case_results)
    references = [Path(case["label"]) for case in cases]
    scores = evaluate_folders(tmp_path / "labels", references, read_label_names(pictures))
    assert levels[0].dice == summarize(scores)[-1].dice
    assert all(level.seconds > 0 for level in levels)


@pytest.mark.slow
def test_classes_that_overlap(overlapping: Path, overlapping_phantoms: Path, tmp_path: Path) -> None:
    levels = prune(nested(overlapping), tmp_path / "new", level=2, dataset=overlapping_phantoms, device="cpu")
    assert all(0 <= level.dice <= 1 for level in levels)


CHOICES = [
    ({1: 0.5, 2: 0.895, 3: 0.9}, 0.01, 2),
    ({1: 0.5, 2: 0.875, 3: 0.9}, 0.01, 3),
    ({1: 0.5, 2: 0.6, 3: 0.9}, 1.0, 1),
    ({1: 0.5, 2: 0.9, 3: 0.9}, 0.0, 2),  # a tie: the smaller
    ({1: 0.2, 2: 0.9, 3: 0.3}, 0.01, 2),  # better than the deepest
    ({1: 0.9, 2: 0.5, 3: 0.9}, 0.0, 1),  # a worse one between does not matter
    ({1: nan, 2: 0.9, 3: 0.9}, 0.5, 2),
    ({1: 0.7}, 0.0, 1),
]


@pytest.mark.parametrize(("dice", "tolerance", "level"), CHOICES)
def test_the_smallest_level_within_the_tolerance(dice: dict[int, float], tolerance: float, level: int) -> None:
    assert choose_level(dice, tolerance) == level


def test_no_class_no_choice() -> None:
    with pytest.raises(ValueError, match="no Dice to choose a level by"):
        choose_level({1: 0.0, 2: nan}, 0.01)


def test_the_table_shows_what_was_measured() -> None:
    levels = [
        Level(1, 1000, 10**9, seconds=0.5, dice=0.7),
        Level(2, 2000, 2 * 10**9, seconds=1.25, dice=nan, kept=True),
    ]
    header, _, *rows = format_levels(levels).splitlines()
    assert header.split() == ["|", "level", "|", "parameters", "|", "GMAC", "|", "s", "a", "case", "|", "Dice", "|"]
    assert rows[1].split() == ["|", "2", "(kept)", "|", "2,000", "|", "2.00", "|", "1.25", "|", "nan", "|"]


@pytest.mark.slow
def test_the_card_says_what_was_cut(full: Path, tmp_path: Path) -> None:
    levels = prune(full, tmp_path / "new", level=2, device="cpu")
    card = (tmp_path / "new/docs/README.md").read_text()
    assert card.startswith("# new\n")
    assert "`bundle_2d` with its UNet++ of 3 levels cut at level 2" in card
    assert format_levels(levels) in card
    assert "32 x 24 voxels" in card


REFUSED = [
    (["--level", "4"], "level is 4; FULL has levels 1 to 3"),
    (["--level", "0"], "level is 0; FULL has levels 1 to 3"),
    (["--auto"], "name one (--dataset)"),
    ([], "neither of --level and --auto"),
    (["--level", "1", "--auto"], "both of --level and --auto"),
    (["--level", "1", "--tolerance", "1.5"], "tolerance is 1.5"),
    (["--level", "1", "--tolerance", "nan"], "tolerance is nan"),
    (["--auto", "--dataset", "absent"], "dataset.json"),
    (["--level", "1", "-o", "FULL"], "FULL: exists"),
    (["--level", "1", "-o", "file/new"], "file"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=[" ".join(a) for a, _ in REFUSED])
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(
    full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said, arguments: Sequence[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    refused(full, [a.replace("FULL", str(full)) for a in arguments], message.replace("FULL", str(full)), capsys)


def refused(bundle: Path, arguments: Sequence[str], message: str, capsys: Said) -> None:
    """`unetfamily prune` says so in one line and changes nothing beside the bundle."""
    before = sorted(bundle.parent.rglob("*"))
    output = [] if "-o" in arguments else ["-o", str(bundle.parent / "new")]
    assert main(["prune", str(bundle), *arguments, *output, "--device", "cpu"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert message in said[0]
    assert sorted(bundle.parent.rglob("*")) == before


def test_a_network_without_levels(bundle_2d: Path, capsys: Said) -> None:
    refused(bundle_2d, ["--level", "1"], "its network is UNet3Plus; only the nested ones", capsys)


def test_a_network_without_heads(untrained_2d: Path, capsys: Said) -> None:
    source = nested(untrained_2d, deep_supervision=False)
    refused(source, ["--level", "1"], "trained without deep supervision, so that it has no heads", capsys)


def test_a_bundle_without_weights(full: Path, capsys: Said) -> None:
    (full / "models" / WEIGHTS).unlink()
    refused(full, ["--level", "1"], "no weights there", capsys)


@pytest.mark.slow
def test_a_network_that_the_metadata_does_not_define(full: Path, capsys: Said) -> None:
    file = full / "configs/inference.yaml"
    file.write_text(file.read_text().replace('"@_meta_#network"', '"@_meta_#networks#unetplusplus"'))
    refused(full, ["--level", "1"], "'@_meta_#network' is needed", capsys)


@pytest.mark.slow
def test_a_data_set_of_other_labels(full: Path, pictures: Path, tmp_path: Path, capsys: Said) -> None:
    other = shutil.copytree(pictures, tmp_path / "other")
    listing = json.loads((other / "dataset.json").read_text())
    (other / "dataset.json").write_text(json.dumps(listing | {"labels": {"0": "background", "1": "lung"}}))
    refused(full, ["--auto", "--dataset", str(other)], "has labels {1: 'lung'}", capsys)
