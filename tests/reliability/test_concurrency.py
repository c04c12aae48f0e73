"""Two runs on one folder at the same time: one waits for the other, or is refused; what is done is done once.

About 15 seconds of one core.
"""

from pathlib import Path

import pytest
import torch

from monai_unetfamily.bundles import open_bundle
from monai_unetfamily.cohort.records import read_records
from tests.reliability.cohorts import Survived, assert_whole, labels
from tests.support.faults import Ended, start
from tests.support.runs import predict
from tests.training.test_resume import assert_equal, state_of
from tests.training.test_training_run import set_config

pytestmark = pytest.mark.slow


@pytest.fixture
def undisturbed(bundle: Path, phantoms: Path, tmp_path: Path) -> dict[str, bytes]:
    list(predict(open_bundle(bundle, torch.device("cpu")), [phantoms / "imagesTr"], tmp_path / "undisturbed"))
    return labels(tmp_path / "undisturbed")


def together(tmp_path: Path, *commands: list[str | Path]) -> list[Ended]:
    running = [start(tmp_path / f"log{number}", command) for number, command in enumerate(commands)]
    return [each.end() for each in running]


@pytest.mark.parametrize(
    "options",
    [
        ([], []),
        pytest.param((["--overwrite"], ["--overwrite"]), marks=pytest.mark.exhaustive),
        pytest.param((["--shard", "1/2"], ["--shard", "2/2"]), marks=pytest.mark.exhaustive),
    ],
    ids=["the same", "overwrite", "shards"],
)
def test_two_runs_of_one_cohort_come_to_the_results_of_one(
    options: tuple[list[str], list[str]],
    bundle: Path,
    phantoms: Path,
    tmp_path: Path,
    undisturbed: dict[str, bytes],
    survived: Survived,
) -> None:
    out = tmp_path / "out"
    common = ["predict", bundle, phantoms / "imagesTr", "-o", out, "--device", "cpu", "--no-previews"]
    for ended in together(tmp_path, *[[*common, *own] for own in options]):
        assert ended.status == 0, ended.said
    assert labels(out) == undisturbed
    assert len(read_records(out)) == len(undisturbed)
    assert (out / "volumes.csv").read_bytes() == (tmp_path / "undisturbed/volumes.csv").read_bytes()
    assert_whole(out)
    survived("concurrency", 1)


def test_of_two_runs_with_different_settings_one_is_refused(
    bundle: Path, phantoms: Path, tmp_path: Path, survived: Survived
) -> None:
    out = tmp_path / "out"
    common = ["predict", bundle, phantoms / "imagesTr", "-o", out, "--device", "cpu", "--no-previews"]
    runs = together(tmp_path, [*common, "--overlap", "0.5"], [*common, "--overlap", "0.25"])
    done, refused = sorted(runs, key=lambda ended: ended.status)
    assert done.status == 0, done.said
    assert refused.status in (1, 2)
    assert "choose another folder" in refused.said
    (settings,) = {record.request.settings["overlap"] for record in read_records(out)}
    assert settings == (0.5, 0.25)[runs.index(done)]
    assert len(labels(out)) == 4
    assert_whole(out)
    survived("concurrency", 1)


def test_of_two_trainings_of_one_bundle_one_is_refused(
    untrained: Path, phantoms: Path, tmp_path: Path, survived: Survived
) -> None:
    set_config(untrained, max_epochs=1, val_interval=1, epoch_batches=2, num_workers=0)
    alone = tmp_path / "alone"
    common = ["--dataset", phantoms, "--device", "cpu"]
    (whole,) = together(tmp_path, ["train", untrained, *common, "-o", alone])
    assert whole.status == 0, whole.said
    done, refused = sorted(
        together(tmp_path, ["train", untrained, *common], ["train", untrained, *common]), key=lambda e: e.status
    )
    assert done.status == 0, done.said
    assert refused.status == 2
    assert "another training is at work here" in refused.said or "would replace these weights" in refused.said
    assert_equal(state_of(untrained), state_of(alone))
    survived("concurrency", 1)
