"""`--tracking mlflow`: what MLflow's local store holds is what the training's own logs say; nothing is reported."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
import torch
from monai.bundle import ConfigParser
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from monai_unetfamily.bundles.trust.config_review import training_parser
from monai_unetfamily.training import read_history, train, training_run
from tests.support.planned_sets import SETS, planned_bundle
from tests.support.processes import module

STEPS = 2  # of an epoch


class Store:
    """The one run of a local store."""

    def __init__(self, logs: Path) -> None:
        self.client = mlflow.MlflowClient(f"sqlite:///{logs / 'mlruns.db'}")
        experiment = self.client.get_experiment_by_name("monai_experiment")
        assert experiment
        [self.run] = self.client.search_runs([experiment.experiment_id])
        self.folder = Path(self.run.info.artifact_uri.removeprefix("file://"))

    def scalars(self, name: str) -> list[tuple[int, float]]:
        return [(each.step, each.value) for each in self.client.get_metric_history(self.run.info.run_id, name)]


def on_the_board(logs: Path, name: str) -> list[tuple[int, float]]:
    """The same as TensorBoard has it, in float32."""
    for file in logs.glob("events.out.*"):
        board = EventAccumulator(str(file)).Reload()
        if name in board.Tags()["scalars"]:
            return [(each.step, each.value) for each in board.Scalars(name)]
    raise AssertionError(f"no {name} in {logs}")


@pytest.fixture
def quick(untrained: Path) -> Path:
    file = untrained / "configs/train.yaml"
    file.write_text(file.read_text().replace("val_interval: 5", "val_interval: 1"))
    return untrained


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once: MLflow takes its time to make one."""
    file = tmp_path_factory.mktemp("store") / "mlruns.db"
    mlflow.MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.mark.slow
def test_monais_own_run_fills_the_local_store(quick: Path, phantoms: Path, empty_store: Path) -> None:
    (quick / "logs").mkdir()
    shutil.copy(empty_store, quick / "logs")
    options = {"dataset_dir": str(phantoms), "max_epochs": "2", "num_workers": "0", "tracking": "mlflow"}
    words = [word for key, value in options.items() for word in (f"--{key}", value)]
    child = module("monai.bundle", "run", "--config_file", "configs/train.yaml", *words, folder=quick)
    said = child.said.read()
    assert child.wait() == 0, said[-3000:]
    store, logs = Store(quick / "logs"), quick / "logs"
    assert store.run.info.status == "FINISHED"
    assert store.run.data.params == {"max_epochs": "2", "epoch_length": str(STEPS)}
    assert [step for step, _ in store.scalars("train_loss")] == [1, 2, 3, 4]
    for name, steps in (("train_loss", 2 * STEPS), ("val_mean_dice", 2)):
        [found, expected] = [torch.tensor(each) for each in (store.scalars(name), on_the_board(logs, name))]
        assert len(found) == steps
        torch.testing.assert_close(found, expected)
    [config] = store.folder.glob("config_*.json")
    assert json.loads(config.read_text())["max_epochs"] == 2


@pytest.mark.slow
def test_the_command_fills_it_alike_the_last_validation_too(untrained: Path, phantoms: Path, empty_store: Path) -> None:
    (untrained / "logs").mkdir()
    shutil.copy(empty_store, untrained / "logs")
    train(untrained, phantoms, epochs=1, device="cpu", tracking="mlflow")
    store, [epoch] = Store(untrained / "logs"), read_history(untrained / "logs/history.csv")
    assert store.run.info.status == "FINISHED"
    losses = [loss for _, loss in store.scalars("train_loss")]
    assert sum(losses) / STEPS == pytest.approx(epoch.loss)
    assert store.scalars("val_mean_dice") == [(1, pytest.approx(epoch.dice))]
    [config] = store.folder.glob("config_*.json")
    assert ConfigParser(json.loads(config.read_text())).get_parsed_content("device") == torch.device("cpu")


@pytest.mark.slow
def test_a_planned_bundle_has_what_monai_adds_its_handlers_to(tmp_path_factory: pytest.TempPathFactory) -> None:
    bundle = planned_bundle(next(iter(SETS)), tmp_path_factory)
    parser = training_parser(bundle, {"dataset_dir": "/data", "device": torch.device("cpu")}, trust=False)
    training_run.track(parser, "mlflow")
    last = [parser["train"]["handlers"][-1], parser["validate"]["handlers"][-1]]
    assert [each["_target_"] for each in last] == ["MLFlowHandler"] * 2


def test_a_bundle_does_not_say_where_its_training_is_told(untrained: Path, tmp_path: Path) -> None:
    file = untrained / "configs/train.yaml"
    file.write_text(f"{file.read_text()}\ntracking_uri: https://example.org\nsave_execute_config: {tmp_path}/else\n")
    parser = training_parser(untrained, {"dataset_dir": "/data", "device": torch.device("cpu")}, trust=False)
    training_run.track(parser, "mlflow")
    store = Path(parser.get_parsed_content("tracking_uri").removeprefix("sqlite:///"))
    assert store.resolve() == (untrained / "logs/mlruns.db").resolve()
    assert Path(parser.get_parsed_content("save_execute_config")).parent == untrained / "logs"


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_run, "find_spec", lambda name: None if name == "alembic" else name)
    with pytest.raises(ImportError, match=r"needs alembic, .* pip install 'monai-unetfamily\[tracking\]'"):
        training_run.check_tracking("mlflow")
    with pytest.raises(ValueError, match="tracking is 'wandb'; mlflow is allowed"):
        training_run.check_tracking("wandb")


@pytest.mark.parametrize(("said", "expected"), [({}, "true"), ({"MLFLOW_DISABLE_TELEMETRY": "false"}, "false")])
def test_mlflow_reports_nothing_unless_the_user_says_so(said: dict[str, str], expected: str) -> None:
    others = {key: value for key, value in os.environ.items() if key != "MLFLOW_DISABLE_TELEMETRY"}
    script = "import os, monai_unetfamily; print(os.environ['MLFLOW_DISABLE_TELEMETRY'])"
    done = subprocess.run([sys.executable, "-c", script], env=others | said, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected
