"""Laws of a comparison's order of work: nothing is done twice, nothing is lost, one failure ends nothing."""

import importlib
import json
import shutil
import signal
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from monai_unetfamily.bundles import network_definition
from monai_unetfamily.cli import main
from monai_unetfamily.comparison import compare, study_report, study_runs
from monai_unetfamily.comparison.study_results import Comparison, read_run
from monai_unetfamily.data import load_cases
from monai_unetfamily.training import read_history
from tests.support.processes import command
from tests.support.tiny import shrink

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("clock")]

NETWORKS = ("unet", "unetplusplus")
MINUTES = 0.01  # of the fixture clock: one epoch


@pytest.fixture
def recipe(untrained: Path) -> Path:
    return shrink(untrained, (24, 24, 16))


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pictures and without processes that measure memory, which take longer than these trainings."""
    module = importlib.import_module("monai_unetfamily.comparison.study")
    monkeypatch.setattr(module, "peak_bytes", lambda *args: 1.0)
    monkeypatch.setattr(study_report, "plots", lambda analysis: ())


BRIEF = pytest.mark.usefixtures("brief")


def run(recipe: Path, data: Path, output: Path, **options: Any) -> Comparison:
    options = {"networks": NETWORKS, "minutes_each": MINUTES, "device": "cpu"} | options
    return compare(data, output, bundle=recipe, **options)


def forbid_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(study_runs, "train", refuse)


def test_two_are_trained_scored_timed_and_reported_once(
    recipe: Path, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run(recipe, phantoms, tmp_path / "out")
    assert [network_result.name for network_result in found.network_results] == [
        "unet",
        "unetplusplus",
        "unetplusplus L1",
    ]
    cases = {Path(case["label"]).name.split(".")[0] for case in load_cases(phantoms, "validation")}
    for network_result in found.network_results:
        assert {score.case for score in network_result.scores} == cases
        assert all(isfinite(value) and value > 0 for value in (network_result.cost.macs, network_result.cost.seconds))
    costs = {network_result.name: network_result.cost for network_result in found.network_results}
    assert costs["unetplusplus L1"].parameters < costs["unetplusplus"].parameters
    assert (tmp_path / "out" / "compare.html").is_file()
    forbid_training(monkeypatch)
    again = run(recipe, phantoms, tmp_path / "out")
    assert repr(again) == repr(found)  # its times too: they are measured once
    with pytest.raises(AssertionError, match="trained again"):
        run(recipe, phantoms, tmp_path / "out", networks=("unet", "unet_l1"))


@pytest.mark.exhaustive
@BRIEF
def test_all_train_alike_and_see_the_same_cases(recipe: Path, phantoms: Path, tmp_path: Path) -> None:
    run(recipe, phantoms, tmp_path / "out", seeds=2, networks=("unet", "unet_l1"))
    directories = sorted((tmp_path / "out" / "runs").glob("*/*/bundle"))
    assert len(directories) == 4
    configs = [yaml.safe_load((directory / "configs" / "train.yaml").read_text()) for directory in directories]
    assert all(config == configs[0] for config in configs)
    splits = [json.loads((directory / "logs" / "split.json").read_text()) for directory in directories]
    assert [split.pop("seed") for split in splits] == [0, 1, 0, 1]
    assert all(split == splits[0] for split in splits)
    assert len({json.dumps(network_definition(directory)) for directory in directories}) == 2


@BRIEF
def test_folds_hold_out_each_case_once(recipe: Path, phantoms: Path, tmp_path: Path) -> None:
    found = run(recipe, phantoms, tmp_path / "out", folds=2, networks=("unet",))
    held_out = [[Path(c["label"]).name.split(".")[0] for c in load_cases(phantoms, "validation", k)] for k in (0, 1)]
    [network_result] = found.network_results
    assert sorted({score.case for score in network_result.scores}) == sorted([*held_out[0], *held_out[1]])
    assert network_result.repeats == ("fold 0", "fold 1")


@BRIEF
def test_one_failure_is_recorded_and_ends_nothing(recipe: Path, phantoms: Path, tmp_path: Path) -> None:
    """MONAI's BasicUNet has five stages whatever the patch: instance norm refuses its last grid, of one voxel."""
    found = run(recipe, phantoms, tmp_path / "out", networks=("unet_l1", "BasicUNet", "unet"))
    assert [network_result.name for network_result in found.network_results] == ["unet_l1", "unet"]
    [(name, repeat, reason)] = found.failures
    assert (name, repeat) == ("BasicUNet", "seed 0")
    assert "Expected more than 1 spatial element" in reason
    assert reason in (tmp_path / "out" / "results.md").read_text()


@BRIEF
def test_a_failed_training_is_tried_again(
    recipe: Path, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = study_runs.train
    with monkeypatch.context() as broken:
        broken.setattr(study_runs, "train", lambda *args, **options: (_ for _ in ()).throw(OSError("no room")))
        with pytest.raises(ValueError, match="no network could be trained and scored.*unet, seed 0: no room"):
            run(recipe, phantoms, tmp_path / "out", networks=("unet",))
    assert study_runs.train is train
    assert not run(recipe, phantoms, tmp_path / "out", networks=("unet",)).failures


@BRIEF
@pytest.mark.parametrize(
    ("moment", "minutes"),
    [
        pytest.param("epoch 1:", MINUTES, marks=pytest.mark.exhaustive),
        pytest.param("training on cpu", MINUTES, marks=pytest.mark.exhaustive),
        ("epoch 2:", 0.05),  # several epochs
        pytest.param("predicting and evaluating", MINUTES, marks=pytest.mark.exhaustive),
        ("L1: predicting", MINUTES),
    ],
)
def test_an_interrupted_comparison_goes_on(
    moment: str, minutes: float, recipe: Path, phantoms: Path, tmp_path: Path
) -> None:
    def interrupt(line: str) -> None:
        if moment in line:
            raise KeyboardInterrupt

    output, lines = tmp_path / "out", list[str]()
    with pytest.raises(KeyboardInterrupt):
        run(recipe, phantoms, output, minutes_each=minutes, networks=("unetplusplus",), log=interrupt)
    assert read_run(output / "runs" / "unetplusplus" / "seed_0") is None
    history = output / "runs" / "unetplusplus" / "seed_0" / "bundle" / "logs" / "history.csv"
    before = len(read_history(history))
    found = run(recipe, phantoms, output, minutes_each=minutes, networks=("unetplusplus",), log=lines.append)
    epochs = read_history(history)
    assert [epoch.epoch for epoch in epochs] == list(range(1, len(epochs) + 1))
    assert len(epochs) >= max(1, before)
    assert len(found.network_results) == 2
    assert not [line for line in lines if line.startswith("epoch 1:")] or before == 0


@pytest.mark.exhaustive
def test_a_killed_command_goes_on(recipe: Path, phantoms: Path, tmp_path: Path) -> None:
    """SIGKILL, which no process can answer, in the second training."""
    output = tmp_path / "out"
    words = ["compare", str(phantoms), "-o", str(output), "--networks", "unet_l1,unet", "--minutes-each", "0.05"]
    words += ["--bundle", str(recipe), "--device", "cpu"]
    child, second = command(*words), False
    for line in child.said:
        second |= line.startswith("2 of 2: unet, seed 0")
        if second and line.startswith("epoch 1:"):
            child.send(signal.SIGKILL)
            break
    child.wait()
    assert second
    first = (output / "runs" / "unet_l1" / "seed_0" / "result.json").read_bytes()
    assert main(words) == 0
    assert (output / "runs" / "unet_l1" / "seed_0" / "result.json").read_bytes() == first
    assert (output / "compare.html").is_file()


@BRIEF
def test_what_a_comparison_was_made_with_stays(recipe: Path, phantoms: Path, tmp_path: Path) -> None:
    run(recipe, phantoms, tmp_path / "out", networks=("unet",))
    with pytest.raises(ValueError, match="holds a comparison with minutes_each 0.01, not 0.02; give what it was made"):
        run(recipe, phantoms, tmp_path / "out", networks=("unet",), minutes_each=0.02)
    data = tmp_path / phantoms.name
    shutil.copytree(phantoms, data)
    run(recipe, data, tmp_path / "other", networks=("unet",))
    names = [Path(case["image"]).name.partition(".")[0] for case in load_cases(data, fold="all")]
    (data / "splits.json").write_text(json.dumps({"training": names[:4], "validation": names[4:]}))
    with pytest.raises(ValueError, match=r"holds a comparison with cases 6 \(\w+\), not 6 \(\w+\); give"):
        run(recipe, data, tmp_path / "other", networks=("unet",))


def test_a_folder_of_something_else_is_left_alone(phantoms: Path, tmp_path: Path) -> None:
    note = tmp_path / "out" / "plan" / "note.txt"
    note.parent.mkdir(parents=True)
    note.write_text("of the user's own")
    with pytest.raises(FileExistsError, match="name another"):
        compare(phantoms, tmp_path / "out", networks=("unett",), minutes_each=MINUTES, device="cpu")
    assert note.is_file()


def test_a_network_that_is_unknown_spoils_no_plan(
    recipe: Path, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan is the comparison's own from the moment that it is there, so that the call may be mended."""
    module = importlib.import_module("monai_unetfamily.comparison.study")
    monkeypatch.setattr(module, "plan_dataset", lambda dataset, folder, **_: shutil.copytree(recipe, folder))
    for _ in range(2):
        with pytest.raises(ValueError, match="networks"):
            compare(phantoms, tmp_path / "out", networks=("unett",), minutes_each=MINUTES, device="cpu")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"minutes_each": 0}, "minutes_each is 0; more than 0"),
        ({"folds": 6}, "folds is 6; .* allows 1 to 5"),
        ({"folds": 2, "seeds": 2}, "got 2 folds and 2 seeds; one of the two"),
        ({"seeds": 0}, "seeds is 0; 1 or more"),
        ({"minutes_each": float("nan")}, "minutes_each is nan; more than 0"),
        ({"features": (4, 8)}, "is planned already; leave out"),
        ({"networks": ("unett",)}, r"networks \['unett'\] are unknown; allowed are all or some of"),
    ],
)
def test_requests_that_cannot_be_are_refused(
    options: dict[str, Any], words: str, recipe: Path, phantoms: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=words):
        run(recipe, phantoms, tmp_path / "out", **options)
    assert not (tmp_path / "out" / "request.json").exists()  # a call with other words may follow


@pytest.mark.exhaustive
@BRIEF
def test_an_open_gate_is_a_variant_of_a_guided_network(recipe: Path, phantoms: Path, tmp_path: Path) -> None:
    found = run(recipe, phantoms, tmp_path / "out", networks=("unet3plus_cgm",))
    assert [(each.name, each.kind) for each in found.network_results] == [
        ("unet3plus_cgm", "family"),
        ("unet3plus_cgm ungated", "variant"),
    ]
    gated, ungated = (sum(score.volume_ml for score in each.scores) for each in found.network_results)
    assert gated <= ungated + 1e-9


@BRIEF
def test_a_data_set_is_planned_trained_and_compared_by_one_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.support.planned_sets import write_volumes

    data = write_volumes(tmp_path / "data", n=6, labels=("spleen", "liver"))
    words = ["compare", str(data), "-o", str(tmp_path / "out"), "--networks", "unet,DynUNet", "--minutes-each", "0.01"]
    assert main([*words, "--features", "4", "8", "8", "--device", "cpu"]) == 0
    text = capsys.readouterr().out
    assert "2 networks had 0.01 minutes of training" in text
    assert "2 of 2: DynUNet, seed 0; about" in text
    assert json.loads((tmp_path / "out" / "results.json").read_text())["baseline"] == "unet"
    assert np.isfinite(json.loads((tmp_path / "out" / "costs.json").read_text())["costs"][0][2])
