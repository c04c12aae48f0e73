"""Checkpoints: whole or not there, complete, and the best one kept."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn

from monai_unetfamily.handlers import AtomicCheckpoint, BestWeights, save_atomically


def weight_in(file: Path) -> float:
    state = torch.load(file, weights_only=True)
    return float(state["weight"])


def run_scored(folder: Path, scores: list[float], patience: int | None = None, every: int = 1) -> tuple[int, nn.Module]:
    """Train a weight that equals the epoch, validated with these scores; return the epochs that were run."""
    network = nn.Linear(1, 1, bias=False)
    validator: Any = SimpleNamespace(state=SimpleNamespace(epoch=0, key_metric_name="dice", metrics={}))
    trainer = Engine(lambda engine, batch: nn.init.constant_(network.weight, engine.state.epoch))

    def validate(engine: Engine) -> None:
        validator.state.epoch = engine.state.epoch
        validator.state.metrics = {"dice": scores[engine.state.epoch // every - 1]}

    trainer.add_event_handler(Events.EPOCH_COMPLETED(every=every), validate)
    BestWeights(folder, network, validator, patience).attach(trainer)
    trainer.run([0], max_epochs=every * len(scores))
    return trainer.state.epoch, network


@pytest.mark.parametrize(("scores", "best"), [([0.1, 0.5, 0.3], 2), ([0.5, 0.5, 0.4], 1), ([0.1, 0.2, 0.3], 3)])
def test_the_best_weights_are_those_of_the_best_validation(tmp_path: Path, scores: list[float], best: int) -> None:
    """The first of equals."""
    assert run_scored(tmp_path, scores)[0] == 3
    assert weight_in(tmp_path / "model_best.pt") == best


def test_epochs_without_a_validation_change_nothing(tmp_path: Path) -> None:
    assert run_scored(tmp_path, [0.4, 0.3], patience=2, every=3)[0] == 6
    assert weight_in(tmp_path / "model_best.pt") == 3


@pytest.mark.parametrize(("patience", "epochs"), [(1, 3), (2, 4), (None, 6)])
def test_training_ends_when_no_validation_is_better_for_long(tmp_path: Path, patience: int | None, epochs: int) -> None:
    assert run_scored(tmp_path, [0.1, 0.3, 0.2, 0.3, 0.1, 0.0], patience)[0] == epochs
    assert weight_in(tmp_path / "model_best.pt") == 2


def test_patience_below_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="patience is 0; 1 or more"):
        BestWeights(tmp_path, nn.Linear(1, 1), validator=None, patience=0)  # type: ignore[arg-type]


def test_a_crash_while_saving_leaves_the_last_good_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "model.pt"
    save_atomically({"w": torch.ones(1000)}, file)
    good = file.read_bytes()

    def half(thing: Any, stream: Any) -> None:
        stream.write(b"half a file")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(KeyboardInterrupt):
        save_atomically({"w": torch.zeros(1000)}, file)
    assert file.read_bytes() == good
    assert list(tmp_path.iterdir()) == [file]


def test_what_a_killed_process_left_goes(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint.pt.0a1b2c3d.part").write_bytes(b"half")
    save_atomically({}, tmp_path / "checkpoint.pt")
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_full_disk_is_named_whatever_torch_says_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails at what its stream has raised, with another error that says nothing of a disk."""

    def fail(thing: Any, stream: Any) -> None:
        try:
            raise OSError(28, "No space left on device")
        except OSError:
            raise RuntimeError("unexpected pos 960 vs 854")  # noqa: B904

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match=r"No space left on device.*weights\.pt"):
        save_atomically({}, tmp_path / "weights.pt")


def test_checkpoints_hold_what_resuming_needs(tmp_path: Path) -> None:
    network = torch.nn.Linear(2, 1)
    engine = Engine(lambda engine, batch: None)
    AtomicCheckpoint(tmp_path, {"network": network}).attach(engine)
    engine.run([1, 2, 3], max_epochs=2)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["trainer"]["iteration"] == 6
    assert torch.equal(state["network"]["weight"], network.weight)
    with pytest.raises(ValueError, match="'network', a torch module"):
        AtomicCheckpoint(tmp_path, {"model": network})


def test_a_checkpoint_brings_everything_back(tmp_path: Path) -> None:
    """And says what it lacks, and where nothing is left to do."""
    network, other = nn.Linear(2, 1), nn.Linear(2, 1)
    engine = Engine(lambda engine, batch: None)
    AtomicCheckpoint(tmp_path, {"network": network}).attach(engine)
    engine.run([1, 2, 3], max_epochs=2)
    again = Engine(lambda engine, batch: None)
    again.state.max_epochs = 5
    AtomicCheckpoint(tmp_path, {"network": other}).restore(again)
    assert torch.equal(other.weight, network.weight)
    assert (again.state.epoch, again.state.iteration, again.state.max_epochs) == (2, 6, 5)
    with pytest.raises(ValueError, match=r"checkpoint\.pt: holds no best"):
        AtomicCheckpoint(tmp_path, {"network": other, "best": None}).restore(again)
    again.state.max_epochs = 2
    with pytest.raises(ValueError, match="has had all its 2 epochs"):
        AtomicCheckpoint(tmp_path, {"network": other}).restore(again)
