"""Auto3DSeg with the family as an algorithm: its own analysis, generation, trainings, ranking and ensembles."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from monai.apps.auto3dseg import (
    AlgoEnsembleBestByFold,
    AlgoEnsembleBestN,
    AlgoEnsembleBuilder,
    BundleGen,
    DataAnalyzer,
    import_bundle_algo_history,
)
from monai.utils.enums import AlgoKeys

from monai_unetfamily.bundles import open_bundle
from monai_unetfamily.data import load_cases, read_label_names
from monai_unetfamily.evaluation import read_csv
from monai_unetfamily.integrations import TEMPLATES, UnetfamilyAlgo, auto3dseg
from monai_unetfamily.integrations.auto3dseg import read_task, run, write_dataset
from monai_unetfamily.io import stem
from monai_unetfamily.prediction import predict_volume
from tests.support.processes import Child

CASES, FOLDS = 4, 2
STATISTICS = {"stats_summary": {"label_stats": {"labels": [0, 1, 2]}}}


def write_task(data: Path, folder: Path, **more: Any) -> Path:
    """The list of phantoms with their folds, and the task file."""
    listing = json.loads((data / "dataset.json").read_text())
    *training, testing = listing["training"][: CASES + 1]
    cases = [case | {"fold": number % FOLDS} for number, case in enumerate(training)]
    content = {"labels": listing["labels"], "training": cases, "testing": [{"image": testing["image"]}]}
    (folder / "cases.json").write_text(json.dumps(content))
    task = {"modality": "CT", "datalist": str(folder / "cases.json"), "dataroot": str(data)} | more
    (folder / "task.yaml").write_text(yaml.safe_dump(task))
    return folder / "task.yaml"


def in_a_child(algorithm: UnetfamilyAlgo, command: str, devices_info: str = "") -> None:
    """The command that Auto3DSeg starts, in a process that has what takes it seconds already."""
    _, script, *words = shlex.split(command)
    child = Child(_run_script, script, tuple(words))
    said = child.said.read()
    assert child.wait() == 0, said[-3000:]
    assert "num_warmup_epochs is nothing that" in said


def _run_script(script: str, words: tuple[str, ...]) -> None:
    from runpy import run_path

    sys.argv = [script, *words]
    run_path(script, run_name="__main__")


@pytest.mark.exhaustive
@pytest.mark.slow
def test_auto3dseg_trains_ranks_and_averages_the_family(
    phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(UnetfamilyAlgo, "_run_cmd", in_a_child)
    task = write_task(phantoms, tmp_path, unetfamily={"features": [4, 8], "device": "cpu"})
    work, statistics = tmp_path / "work", tmp_path / "datastats.yaml"
    DataAnalyzer(
        str(tmp_path / "cases.json"), str(phantoms), str(statistics), device="cpu", worker=0
    ).get_all_case_stats()
    generator = BundleGen(str(work), "unetfamily", str(TEMPLATES), str(statistics), str(task))
    generator.generate(str(work), num_fold=FOLDS)
    for fold in range(FOLDS):
        config = work / f"unetfamily_{fold}/bundle/configs/train.yaml"
        config.write_text(config.read_text().replace("num_workers: {_target", "num_workers: 0  # {_target"))
        (entry,) = (entry for entry in generator.get_history() if entry[AlgoKeys.ID] == f"unetfamily_{fold}")
        entry[AlgoKeys.ALGO].train({"num_epochs": 1, "num_warmup_epochs": 1, "device": "cpu"})
    history = import_bundle_algo_history(str(work), template_path=str(work / "algorithm_templates"))
    for fold, entry in enumerate(history):
        bundle = work / f"unetfamily_{fold}/bundle"
        held_out = {stem(Path(case["label"])) for case in load_cases(work / f"unetfamily_{fold}/dataset", "validation")}
        assert held_out == {f"phantom_{number:03}" for number in range(fold, CASES, FOLDS)}
        assert {score.case for score in read_csv(bundle / "eval/scores.csv")} == held_out
        assert 0 <= entry[AlgoKeys.SCORE] <= 1
    image = phantoms / f"imagesTr/phantom_{CASES:03}.nii.gz"
    labels, probabilities = [], []
    for entry in history:
        bundle = open_bundle(Path(entry[AlgoKeys.ALGO].output_path) / "bundle", torch.device("cpu"))
        labels.append(predict_volume(bundle, image))
        probabilities.append(entry[AlgoKeys.ALGO].predict([{"image": str(image)}], {"device": "cpu"})[0])
        assert np.array_equal(probabilities[-1].argmax(0).numpy(), labels[-1])
        assert np.array_equal(probabilities[-1].affine.numpy(), nib.load(image).affine)
    assert not np.array_equal(labels[0], labels[1])
    mean = ensemble(AlgoEnsembleBestByFold(FOLDS), history, task)
    assert np.array_equal(mean, torch.stack(probabilities).mean(0).argmax(0).numpy())
    best = max(range(FOLDS), key=lambda fold: history[fold][AlgoKeys.SCORE])
    assert np.array_equal(ensemble(AlgoEnsembleBestN(1), history, task), labels[best])


def ensemble(method: Any, history: list[Any], task: Path) -> np.ndarray[Any, Any]:
    """Labels of the one image under "testing"."""
    builder = AlgoEnsembleBuilder(history, str(task))
    builder.set_ensemble_method(method)
    [labels] = builder.get_ensemble()({"device": "cpu"})
    return np.asarray(labels[0])


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"class_names": ["liver"]}, {0: "background", 1: "liver"}),
        ({}, {0: "background", 1: "liver", 2: "spleen", 3: "left_kidney", 4: "right_kidney", 5: "spine"}),
    ],
)
def test_who_names_the_classes(phantoms: Path, tmp_path: Path, more: dict[str, Any], expected: dict[int, str]) -> None:
    task = read_task(write_task(phantoms, tmp_path, **more))
    assert read_label_names(write_dataset(task, STATISTICS, 0, tmp_path / "dataset")) == expected


def test_the_statistics_name_classes_that_nobody_names(phantoms: Path, tmp_path: Path) -> None:
    task = read_task(write_task(phantoms, tmp_path))
    listing = json.loads((tmp_path / "cases.json").read_text())
    del listing["labels"]
    (tmp_path / "cases.json").write_text(json.dumps(listing))
    names = read_label_names(write_dataset(task, STATISTICS, 1, tmp_path / "dataset"))
    assert names == {0: "background", 1: "class 1", 2: "class 2"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"modality": ""}, "has no 'modality'"),
        ({"class_names": [{"name": "kidneys", "index": [1, 2]}]}, "regions may overlap"),
    ],
)
def test_tasks_that_cannot_be_planned(phantoms: Path, tmp_path: Path, more: dict[str, Any], message: str) -> None:
    file = write_task(phantoms, tmp_path, **more)
    with pytest.raises(ValueError, match=message):
        write_dataset(read_task(file), STATISTICS, 0, tmp_path / "dataset")


def test_a_fold_that_nobody_is_in(phantoms: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fold 7 leaves a section empty"):
        write_dataset(read_task(write_task(phantoms, tmp_path)), STATISTICS, 7, tmp_path / "dataset")


def test_a_training_that_was_killed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole one is not done again: `train` refuses to replace its weights."""
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(auto3dseg, "train", lambda *_, **how: asked.append(how))
    monkeypatch.setattr(auto3dseg, "write_score", lambda root: (root / "progress.yaml").touch())
    settings = tmp_path / "configs/hyper_parameters.yaml"
    (tmp_path / "bundle/models").mkdir(parents=True)
    settings.parent.mkdir()
    settings.write_text("seed: 3\nnum_epochs: null")
    (tmp_path / "bundle/models/checkpoint.pt").touch()
    for _ in range(2):
        run(str(settings), num_epochs=2)
    assert [(how["resume"], how.get("seed"), how["epochs"]) for how in asked] == [(True, None, 2), (False, 3, 2)]


def test_of_several_processes_one_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    run(str(tmp_path / "no such file.yaml"))
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(FileNotFoundError):
        run(str(tmp_path / "no such file.yaml"))
