"""kill -9 at every kind of place of a prediction and a training: the same command again comes to the same results.

About 80 seconds of one core.
"""

import shutil
from pathlib import Path

import pytest

from monai_unetfamily.training import read_history
from tests.reliability.cohorts import Survived, assert_whole, digests, labels
from tests.reliability.deaths import PREDICT_DIES, SCORES_DIE, SPLIT_DIES, TRAIN_DIES
from tests.support.faults import Ended, die_at, run
from tests.training.test_resume import assert_equal, state_of
from tests.training.test_training_run import set_config

pytestmark = pytest.mark.slow

KILLED = -9
FEW = 3  # places that `make test` tries


def images(phantoms: Path) -> list[Path]:
    return sorted((phantoms / "imagesTr").glob("*.nii.gz"))[:2]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("options", "places"),
    [
        ((), PREDICT_DIES[:FEW]),
        pytest.param((), PREDICT_DIES[FEW:], marks=pytest.mark.exhaustive),
        pytest.param(("--split", "--no-previews"), SPLIT_DIES, marks=pytest.mark.exhaustive),
        pytest.param(("--save-scores", "--no-previews"), SCORES_DIE, marks=pytest.mark.exhaustive),
    ],
    ids=["a few", "plain", "split", "scores"],
)
def test_a_killed_prediction_is_completed_by_the_same_command(
    options: tuple[str, ...],
    places: tuple[tuple[str, int], ...],
    bundle: Path,
    phantoms: Path,
    tmp_path: Path,
    results: Path,
    survived: Survived,
) -> None:
    before = digests(phantoms)

    def predict(out: Path, *fault: object) -> Ended:
        command = ["predict", bundle, *images(phantoms), "-o", out, "--device", "cpu", *options]
        return run(tmp_path / "log", command, *([die_at, out, *fault] if fault else []))

    assert predict(results / "undisturbed").status == 0
    expected = {name: digest for name, digest in digests(results / "undisturbed").items() if ".nii" in name}
    for number, (place, times) in enumerate(places):
        out = results / str(number)
        assert predict(out, place, times).status == KILLED, (place, times)
        whole = {name: digest for name, digest in digests(out).items() if ".nii" in name and ".part" not in name}
        assert whole.items() <= expected.items(), (place, times)
        ended = predict(out)
        assert ended.status == 0, ended.said
        assert {name: digest for name, digest in digests(out).items() if ".nii" in name} == expected, (place, times)
        assert (out / "volumes.csv").read_bytes() == (results / "undisturbed/volumes.csv").read_bytes()
        assert not [file for file in out.rglob(".*") if file.name.endswith(".part")], (place, times)
        if not options:
            assert_whole(out)
            assert len(labels(out)) == 2
    assert digests(phantoms) == before
    survived("processes", len(places))


@pytest.mark.parametrize(
    "places",
    [TRAIN_DIES[-2:-1], pytest.param((*TRAIN_DIES[:-2], TRAIN_DIES[-1]), marks=pytest.mark.exhaustive)],
    ids=["one", "the others"],
)
def test_a_killed_training_is_completed_by_resuming(
    places: tuple[tuple[str, int], ...], untrained: Path, phantoms: Path, tmp_path: Path, survived: Survived
) -> None:
    set_config(untrained, max_epochs=2, val_interval=1, epoch_batches=2, num_workers=0)
    before = digests(phantoms)

    def train(bundle: Path, *fault: object) -> Ended:
        going_on = ["--resume"] if (bundle / "models/checkpoint.pt").exists() else []
        command = ["train", bundle, "--dataset", phantoms, "--device", "cpu", *going_on]
        return run(tmp_path / "log", command, *([die_at, bundle, *fault] if fault else []))

    for number in range(len(places)):
        shutil.copytree(untrained, tmp_path / "rooms" / str(number))
    ended = train(untrained)
    assert ended.status == 0, ended.said
    for number, (place, times) in enumerate(places):
        bundle = tmp_path / "rooms" / str(number)
        assert train(bundle, place, times).status == KILLED, (place, times)
        ended = train(bundle)
        assert ended.status == 0, (place, times, ended.said)
        assert_equal(state_of(bundle), state_of(untrained))
        for name in ("models/model.pt", "models/model_best.pt", "eval/scores.csv"):
            assert (bundle / name).exists(), (place, times, name)
        assert (bundle / "eval/scores.csv").read_bytes() == (untrained / "eval/scores.csv").read_bytes(), place
        assert not list((bundle / "models").glob(".*.part")), (place, times)
        lines = [
            [(epoch.epoch, epoch.loss) for epoch in read_history(directory / "logs/history.csv")]
            for directory in (bundle, untrained)
        ]
        assert lines[0] == lines[1], (place, times)
    assert digests(phantoms) == before
    survived("processes", len(places))
