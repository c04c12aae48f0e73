"""A training that was killed goes on exactly as it would have gone on."""

import json
import os
import shutil
import signal
import subprocess
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from monai_unetfamily.training import read_history, train
from tests.support.faults import die_at, die_at_step, run
from tests.support.tiers import sampled
from tests.training.test_training_run import TORCHRUN, run_two, set_config

pytestmark = pytest.mark.slow

EPOCHS = 4
DIES = """
import os
from runpy import run_module
from faults import die_at_step

if os.environ["RANK"] == "0":
    die_at_step(6)
run_module("monai.bundle", run_name="__main__", alter_sys=True)
"""
CONFIGS = "['configs/train.yaml','configs/multi_gpu_train.yaml']"


@pytest.fixture
def recipe(untrained: Path) -> Path:
    """Every source of chance: order, crops, augmentation, dropout of the guide."""
    set_config(untrained, max_epochs=EPOCHS, val_interval=2, epoch_batches=3, accumulation_steps=2)
    return untrained


def state_of(bundle: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(bundle / "models/checkpoint.pt", weights_only=True)
    return state


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, dict | list | tuple):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return {name: leaf for key, part in pairs for name, leaf in leaves(part, f"{path}/{key}").items()}
    return {path: value}


def assert_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Bit for bit: weights, optimizer, schedule, best score."""
    ours, theirs = leaves(one), leaves(other)
    assert ours.keys() == theirs.keys()
    differing = [
        key
        for key in ours
        if not (torch.equal(ours[key], theirs[key]) if isinstance(ours[key], Tensor) else ours[key] == theirs[key])
    ]
    assert not differing


@pytest.mark.exhaustive
def test_a_killed_training_goes_on_exactly(recipe: Path, phantoms: Path, tmp_path: Path) -> None:
    """With loader processes; reliability/test_killed.py is without."""
    set_config(recipe, num_workers=1)
    killed = tmp_path / "killed"
    shutil.copytree(recipe, killed)
    train(recipe, phantoms, device="cpu")
    words = ["train", killed, "--dataset", phantoms, "--device", "cpu"]
    in_an_epoch, as_it_saves = (die_at_step, 4), (die_at, killed, "rename models/checkpoint.pt", 3)
    for fault, *how in (in_an_epoch, as_it_saves):  # the second and the third of four
        shutil.rmtree(killed / "models", ignore_errors=True)
        assert run(tmp_path / "log", words, fault, *how).status == -signal.SIGKILL
        assert 0 < state_of(killed)["trainer"]["iteration"] < state_of(recipe)["trainer"]["iteration"]
        train(killed, phantoms, resume=True, device="cpu")
        assert_equal(state_of(killed), state_of(recipe))
        losses = [[(e.epoch, e.loss, e.dice) for e in read_history(b / "logs/history.csv")] for b in (killed, recipe)]
        assert losses[0] == losses[1]
        best = [torch.load(b / "models/model_best.pt", weights_only=True) for b in (killed, recipe)]
        assert_equal(*best)


def test_chance_follows_from_the_seed(recipe: Path, phantoms: Path, tmp_path: Path) -> None:
    set_config(recipe, max_epochs=1)
    states = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(recipe, phantoms, output=tmp_path / name, seed=seed, device="cpu")
        states.append(state_of(tmp_path / name)["network"])
    assert_equal(states[0], states[1])
    with pytest.raises(AssertionError):
        assert_equal(states[0], states[2])


def test_a_training_that_is_complete_is_not_resumed(recipe: Path, phantoms: Path) -> None:
    """ignite would begin it anew, at a learning rate of 0."""
    train(recipe, phantoms, device="cpu")
    with pytest.raises(ValueError, match="has had all its 4 epochs"):
        train(recipe, phantoms, resume=True, device="cpu")


@pytest.mark.parametrize(
    ("last", "minutes"),
    sampled(product(["epoch 1:", "predicting and evaluating"], [None, 0.001]), ("epoch 1:", 0.001)),
)
def test_a_training_that_lacks_its_figures_gets_them(
    recipe: Path, phantoms: Path, last: str, minutes: float | None
) -> None:
    """Killed while it was evaluated, after its last epoch; before, the card says that nothing is known."""

    def interrupt(line: str) -> None:
        if line.startswith(last):
            raise KeyboardInterrupt

    set_config(recipe, max_epochs=1, val_interval=1)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, phantoms, minutes=minutes, device="cpu", log=interrupt)
    assert "has not come to its end" in (card := (recipe / "docs/README.md").read_text())
    assert "no weights yet" not in card
    before = state_of(recipe)
    train(recipe, phantoms, minutes=minutes, resume=True, device="cpu")
    assert_equal(before, state_of(recipe))
    assert "| liver" in (recipe / "docs/README.md").read_text()


def test_a_resumed_run_keeps_its_cases(recipe: Path, phantoms: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(phantoms, data)
    set_config(recipe, max_epochs=1)
    train(recipe, data, fold=2, device="cpu")
    split = json.loads((recipe / "logs/split.json").read_text())
    assert (split["fold"], split["validation"]) == (2, ["phantom_002"])
    set_config(recipe, max_epochs=2)
    with pytest.raises(ValueError, match="keeps its folder, network, weights, fold and seed"):
        train(recipe, data, fold=1, resume=True, device="cpu")
    table = json.loads((data / "dataset.json").read_text())
    (data / "dataset.json").write_text(json.dumps(table | {"training": table["training"][:-1]}))
    with pytest.raises(ValueError, match=r"learned from other cases .* \('phantom_005' first\)"):
        train(recipe, data, resume=True, device="cpu")


@pytest.mark.exhaustive
def test_two_processes_are_resumed_by_the_command_that_started_them(
    recipe: Path, phantoms: Path, tmp_path: Path
) -> None:
    set_config(recipe, max_epochs=6)
    killed = tmp_path / "killed"
    shutil.copytree(recipe, killed)
    run_two(recipe, phantoms)
    script = tmp_path / "dies.py"
    script.write_text(DIES)
    command = [*TORCHRUN[:-1], str(script), "run", "--config_file", CONFIGS, "--dataset_dir", str(phantoms)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run(command, cwd=killed, env=environment, capture_output=True, text=True)
    assert ended.returncode, ended.stdout[-3000:]
    assert 0 < state_of(killed)["trainer"]["iteration"] < state_of(recipe)["trainer"]["iteration"], ended.stderr[-3000:]
    run_two(killed, phantoms, resume="true")
    assert_equal(state_of(killed), state_of(recipe))
