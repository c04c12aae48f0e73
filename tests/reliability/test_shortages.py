"""Full disks, read-only directories, refused memory and dying workers: one line says so, and nothing is lost.

The faults are injected: a write, an allocation or a change to a directory raises what the system would raise.
"""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple

import pytest

from monai_unetfamily.bundles import copy_bundle, find_bundle
from monai_unetfamily.cli import main
from monai_unetfamily.nets import UNet3Plus
from tests.reliability.cohorts import Survived, assert_whole, digests, failures, labels
from tests.reliability.shortages import OUT_OF_MEMORY, Disk, at_call
from tests.support.faults import Ended, die_at, lose_workers, refuse_changes, run
from tests.support.tiny import shrink, weigh
from tests.training.test_resume import assert_equal, state_of
from tests.training.test_training_run import set_config

pytestmark = pytest.mark.slow

QUARTERS = range(4)  # of the bytes of a whole prediction: as many fit on the disk
Command = Callable[..., Ended]  # words of a command line -> how it ended


class Undisturbed(NamedTuple):
    """A prediction without a fault: its label maps, and the bytes that it wrote."""

    labels: dict[str, bytes]
    written: int


@pytest.fixture
def here(capfd: pytest.CaptureFixture[str]) -> Command:
    """The command in this process; what it prints, and what its threads print, on either stream."""

    def command(*words: str | Path) -> Ended:
        status = main([str(word) for word in words])
        return Ended(status, "".join(capfd.readouterr()))

    return command


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle with random weights, for all predictions: they only read it."""
    return weigh(new_bundle(tmp_path_factory))


@pytest.fixture(scope="module")
def undisturbed(bundle: Path, phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    with Disk(out).mounted() as disk:
        assert main(list(map(str, predict(bundle, phantoms / "imagesTr", out)))) == 0
    return Undisturbed(labels(out), disk.written)


@pytest.fixture(scope="module")
def trained(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The state of a training without a fault."""
    bundle = with_recipe(new_bundle(tmp_path_factory))
    assert main(list(map(str, train(bundle, phantoms)))) == 0
    return state_of(bundle)


def new_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    copy_bundle(find_bundle("phantom_ct"), folder)
    return shrink(folder)


def with_recipe(bundle: Path, workers: int = 0) -> Path:
    """Two epochs of two steps, each of which ends with a validation and a checkpoint."""
    set_config(bundle, max_epochs=2, val_interval=1, epoch_batches=2, num_workers=workers)
    return bundle


def predict(bundle: Path, inputs: Path, out: Path, *options: str) -> list[str | Path]:
    return ["predict", bundle, inputs, "-o", out, "--device", "cpu", "--no-previews", *options]


def train(bundle: Path, data: Path, *options: str) -> list[str | Path]:
    return ["train", bundle, "--dataset", data, "--device", "cpu", *options]


def assert_one_line(ended: Ended, *words: str) -> None:
    """It failed, not by a signal; one line says why, and there is no traceback."""
    assert ended.status in (1, 2), ended
    assert "Traceback" not in ended.said, ended.said
    errors = [line for line in ended.said.splitlines() if line.startswith("unetfamily: ")]
    assert any(all(word in line for word in words) for line in errors), ended.said


@pytest.mark.parametrize(
    ("quarters", "code"),
    [*((n, errno.ENOSPC) for n in QUARTERS), (2, errno.EDQUOT), (2, errno.EIO), (0, errno.EFBIG)],
    ids=[*(f"{n} quarters" for n in QUARTERS), "quota", "input-output error", "file too large"],
)
def test_a_full_disk_ends_a_prediction_which_the_same_command_completes(
    quarters: int,
    code: int,
    bundle: Path,
    phantoms: Path,
    tmp_path: Path,
    undisturbed: Undisturbed,
    here: Command,
    survived: Survived,
) -> None:
    out, images = tmp_path / "out", phantoms / "imagesTr"
    with Disk(out, undisturbed.written * quarters // 4, code).mounted():
        ended = here(*predict(bundle, images, out))
    assert_one_line(ended, os.strerror(code), str(out))
    assert labels(out).items() <= undisturbed.labels.items()
    again = here(*predict(bundle, images, out))
    assert again.status == 0, again.said
    assert labels(out) == undisturbed.labels
    assert_whole(out)
    survived("processes", 1)


def test_a_disk_that_becomes_full_ends_a_training_which_is_resumed(
    untrained: Path, phantoms: Path, trained: dict[str, Any], here: Command, survived: Survived
) -> None:
    bundle = with_recipe(untrained)
    with Disk(bundle, 0, once=bundle / "models/model.pt").mounted():
        ended = here(*train(bundle, phantoms))
    assert_one_line(ended, os.strerror(errno.ENOSPC), str(bundle))
    assert state_of(bundle)["trainer"]["epoch_length"] == 2  # the last good checkpoint is whole
    assert_resumed(here(*train(bundle, phantoms, "--resume")), bundle, trained)
    survived("processes", 1)


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES], ids=["read-only", "denied"])
@pytest.mark.parametrize("part", [".", "new"])
def test_an_output_directory_that_may_only_be_read_is_refused_at_once(
    part: str, code: int, bundle: Path, phantoms: Path, tmp_path: Path, survived: Survived
) -> None:
    read_only = tmp_path / "read_only"
    read_only.mkdir()
    command = predict(bundle, phantoms / "imagesTr", read_only / part)
    ended = run(tmp_path / "log", command, refuse_changes, read_only, code)
    assert_one_line(ended, str(read_only / part), os.strerror(code), "name a folder that may be made and written")
    assert ended.status == 2
    assert not list(read_only.iterdir())
    survived("processes", 1)


def test_inputs_that_may_only_be_read_are_enough(
    bundle: Path, phantoms: Path, tmp_path: Path, undisturbed: Undisturbed, survived: Survived
) -> None:
    before, out = digests(phantoms), tmp_path / "out"
    command = predict(bundle, phantoms / "imagesTr", out)
    ended = run(tmp_path / "log", command, refuse_changes, phantoms, errno.EROFS)
    assert ended.status == 0, ended.said
    assert labels(out) == undisturbed.labels
    assert digests(phantoms) == before
    survived("processes", 1)


@pytest.mark.parametrize(
    ("stage", "memory"),
    [
        ("monai_unetfamily.cohort.cohort_run.load_case", "NumPy"),
        *(("monai_unetfamily.nets.unet3plus.UNet3Plus.forward", memory) for memory in OUT_OF_MEMORY),
        ("monai_unetfamily.cohort.outputs.write_labels", "Python"),
    ],
    ids=["read", *(f"network, {memory}" for memory in OUT_OF_MEMORY), "write"],
)
def test_a_case_that_takes_more_memory_than_there_is_fails_alone(
    stage: str,
    memory: str,
    bundle: Path,
    phantoms: Path,
    tmp_path: Path,
    undisturbed: Undisturbed,
    here: Command,
    monkeypatch: pytest.MonkeyPatch,
    survived: Survived,
) -> None:
    before, out, images = digests(phantoms), tmp_path / "out", phantoms / "imagesTr"
    with monkeypatch.context() as patch:
        patch.setattr(stage, at_call(3, OUT_OF_MEMORY[memory], resolve_name(stage)))
        ended = here(*predict(bundle, images, out))
    assert_one_line(ended, "phantom_002", "out of memory: ")
    assert ended.status == 1
    assert failures(out).keys() == {"phantom_002"}
    assert labels(out) == {name: data for name, data in undisturbed.labels.items() if "phantom_002" not in name}
    assert_whole(out)
    assert here(*predict(bundle, images, out)).status == 0
    assert labels(out) == undisturbed.labels
    assert digests(phantoms) == before
    survived("processes", 1)


@pytest.mark.parametrize("memory", ["torch", "Python"])
def test_too_little_memory_ends_a_training_which_is_resumed(
    memory: str,
    untrained: Path,
    phantoms: Path,
    trained: dict[str, Any],
    here: Command,
    monkeypatch: pytest.MonkeyPatch,
    survived: Survived,
) -> None:
    """Refused as the network runs for the fourth time: after two steps, a validation and a checkpoint."""
    bundle = with_recipe(untrained)
    with monkeypatch.context() as patch:
        patch.setattr(UNet3Plus, "forward", at_call(4, OUT_OF_MEMORY[memory], UNet3Plus.forward))
        ended = here(*train(bundle, phantoms))
    assert_one_line(ended, "out of memory: ", "batch_size")
    assert_resumed(here(*train(bundle, phantoms, "--resume")), bundle, trained)
    survived("processes", 1)


def test_a_loader_without_shared_memory_ends_a_training_with_the_fix(
    untrained: Path, phantoms: Path, here: Command, monkeypatch: pytest.MonkeyPatch, survived: Survived
) -> None:
    error = RuntimeError(
        "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's ..."
    )
    bundle = with_recipe(untrained)
    monkeypatch.setattr("monai.data.DataLoader.__iter__", at_call(1, lambda: error, lambda self: iter(())))
    assert_one_line(here(*train(bundle, phantoms)), "/dev/shm", "--shm-size", "num_workers: 0", "Bus error")
    survived("processes", 1)


def test_a_loader_that_dies_ends_a_training_which_is_resumed(
    untrained: Path, phantoms: Path, tmp_path: Path, survived: Survived
) -> None:
    bundle, log = with_recipe(untrained, workers=1), tmp_path / "log"  # whose random numbers are a worker's
    whole = shutil.copytree(bundle, tmp_path / "whole")
    assert run(log, train(whole, phantoms)).status == 0
    ended = run(log, train(bundle, phantoms), lose_workers, bundle / "models/model.pt")
    assert_one_line(ended, "DataLoader worker")
    assert_resumed(run(log, train(bundle, phantoms, "--resume")), bundle, state_of(whole))
    survived("processes", 1)


def assert_resumed(ended: Ended, bundle: Path, trained: dict[str, Any]) -> None:
    """The resumed training ended well, and with the weights of one without a fault."""
    assert ended.status == 0, ended.said
    assert_equal(state_of(bundle), trained)


def test_a_shard_that_dies_leaves_the_others_theirs(
    bundle: Path, phantoms: Path, tmp_path: Path, undisturbed: Undisturbed, survived: Survived
) -> None:
    out, images = tmp_path / "out", phantoms / "imagesTr"
    dies = "rename phantom_002.nii.gz"  # of cases 0 and 2
    assert run(tmp_path / "log", predict(bundle, images, out, "--shard", "1/2"), die_at, out, dies).status == -9
    assert run(tmp_path / "log", predict(bundle, images, out, "--shard", "2/2")).status == 0
    assert failures(out) == {"phantom_002": "was not finished; run the same command again"}
    assert run(tmp_path / "log", predict(bundle, images, out, "--shard", "1/2")).status == 0
    assert labels(out) == undisturbed.labels
    assert_whole(out)
    survived("processes", 1)
