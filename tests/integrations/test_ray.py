"""A cohort on a Ray cluster: as on one machine, whatever becomes of the workers.

One cluster of two workers for all tests of this file.
"""

import json
import os
import pickle
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from importlib import util
from pathlib import Path
from socket import socket
from typing import Any

import pytest
import torch

from monai_unetfamily.bundles import Bundle, open_bundle
from monai_unetfamily.cli import main
from monai_unetfamily.cohort import FAILURES, CaseResult, begin_run, predict_cohort
from monai_unetfamily.cohort.records import read_records
from monai_unetfamily.data import find_studies
from monai_unetfamily.integrations import predict_on_cluster
from monai_unetfamily.integrations.ray import (
    LOCAL,
    TRIES,
    Done,
    Lost,
    Slots,
    Worker,
    WorkerPool,
    _case_result,
    _keep_private,
    _orders,
    _portable,
    _require_somebody,
    find_slots,
    joined,
)
from monai_unetfamily.io import Study
from monai_unetfamily.prediction import DEFAULTS
from tests.support.processes import command

pytestmark = pytest.mark.slow

CASES = 5
STARTS = 10  # of a cluster, on a machine so busy that Ray's own limit of 30 seconds is too short
HELD_UP = "    - {{_target_: Lambdad, keys: image, func: \"$__import__('runpy').run_path('{script}')['hold']\"}}\n"
SCRIPT = """
import os, time
from pathlib import Path

def hold(x):
    folder = Path({folder!r})
    with open(folder / "readers", "a") as log:
        log.write(f"{{os.getpid()}}\\n")
    try:
        (folder / "first").touch(exist_ok=False)
    except FileExistsError:
        while not (folder / "open").exists():
            time.sleep(0.01)
    return x
"""


@pytest.fixture(scope="module", autouse=True)
def _private() -> None:
    """Ray looks at these settings when it is first imported, in whatever test."""
    _keep_private()


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_OVERRIDE_RESOURCES", json.dumps({"CPU": 2}))
        patch.setenv("RAY_worker_niceness", "0")
        with started():
            import ray

            yield ray.get_runtime_context().gcs_address


def started() -> AbstractContextManager[None]:
    """A cluster of this machine, entered: started again where it was too slow for Ray."""
    for _ in range(STARTS):
        stack = ExitStack()
        try:
            stack.enter_context(joined(LOCAL))
        except ConnectionError as error:
            slow = error
        else:
            return stack
    raise slow


@pytest.fixture
def opened(bundle: Path) -> Bundle:
    """A bundle whose own code notes the process of each case, and holds up all cases but the first until `go_on`."""
    config, script = bundle / "configs/inference.yaml", bundle / "hold.py"
    script.write_text(SCRIPT.format(folder=str(bundle)))
    mark = "    - {_target_: Orientationd"
    config.write_text(config.read_text().replace(mark, HELD_UP.format(script=script) + mark))
    return open_bundle(bundle, torch.device("cpu"), trust=True)


def go_on(bundle: Bundle) -> None:
    (bundle.root / "open").touch()


def hold_up(bundle: Bundle) -> None:
    """From the second case on."""
    for name in ("open", "first", "readers"):
        (bundle.root / name).unlink()


@pytest.fixture
def studies(phantoms: Path, tmp_path: Path) -> list[Study]:
    """A file that is cut off among whole ones."""
    images = sorted((phantoms / "imagesTr").glob("*.nii.gz"))[:CASES]
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(images[0].read_bytes()[:-400])
    return list(find_studies([images[0], bad, *images[1:]]).studies)


def readers(bundle: Bundle) -> list[int]:
    """The processes that have read a case."""
    pids = map(int, (bundle.root / "readers").read_text().split())
    return [pid for pid in pids if pid != os.getpid()]


def files(out: Path) -> dict[str, bytes]:
    """What is the same of any two runs: all but times, machines, and the page that tells them."""
    kept = [*out.rglob("*.nii.gz"), *out.rglob("*.png"), *out.rglob("*.csv"), *out.rglob("*.tsv")]
    return {str(file.relative_to(out)): file.read_bytes() for file in kept}


def records(out: Path) -> list[Any]:
    return [replace(record, seconds=dict.fromkeys(record.seconds, 0)) for record in read_records(out)]


def stamp(file: Path) -> tuple[int, int]:
    return file.stat().st_ino, file.stat().st_mtime_ns


@pytest.mark.exhaustive
def test_a_worker_that_is_killed_costs_nothing(
    cluster: str, opened: Bundle, studies: list[Study], tmp_path: Path
) -> None:
    here, out, said = tmp_path / "here", tmp_path / "out", list[str]()
    go_on(opened)
    alone = {case_result.study.name: case_result for case_result in predict_cohort([opened], studies, here)}

    hold_up(opened)
    run = predict_on_cluster([opened], studies, out, cores=1, trust=True, log=said.append)
    case_results = [next(run)]
    while not case_results[-1].output:  # the file that is cut off
        case_results.append(next(run))
    seen = {case_result.output: stamp(case_result.output) for case_result in case_results if case_result.output}
    os.kill(readers(opened)[0], signal.SIGKILL)  # who has done the first case has others in hand
    go_on(opened)
    case_results += run

    assert any("a worker died" in line and "phantom" in line for line in said), said
    assert len(set(readers(opened))) > 1
    assert sorted(case_result.study.name for case_result in case_results) == sorted(study.name for study in studies)
    assert not any(case_result.skipped for case_result in case_results)
    assert {file: stamp(file) for file in seen} == seen
    for case_result in case_results:
        other = alone[case_result.study.name]
        assert (case_result.study, type(case_result.error), str(case_result.error)) == (
            other.study,
            type(other.error),
            str(other.error),
        )
    assert records(out) == records(here)
    assert len(read_records(out)) == CASES + 1
    assert files(out) == files(here)
    assert not list(out.glob(".*.case.lock"))
    machine = json.loads((out / "run.json").read_text())["machine"]
    assert sum(node["workers"] for node in machine["workers"].values()) in (2, 3)  # the third may come too late

    before = {file: stamp(file) for file in out.glob("*.nii.gz")}
    words = [str(file) for study in studies for file in study.files]
    predict = ("predict", str(opened.root), *words, "-o", str(out), "--trust", "--ray", cluster, "--worker-cores", "2")
    child = command(*predict)
    lines = child.said.read().splitlines()
    assert child.wait() == 1, lines
    assert sum("is finished already" in line for line in lines) == CASES, lines
    assert f"0 done, {CASES} finished before, 1 failed" in lines
    assert {file: stamp(file) for file in before} == before


class Killer:
    """A worker that is killed by an item, or by opening."""

    def __init__(self, deadly: str = "") -> None:
        self.deadly = deadly

    def open(self) -> str:
        return self.do("open")

    def do(self, item: str) -> str:
        if item == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        if item == "wrong":
            raise FileNotFoundError("the folder has vanished")
        return item.upper()


def pool(items: list[str], deadly: str, log: list[str]) -> WorkerPool[str]:
    import ray
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[Killer.__module__])  # or a worker would load this file, and torch
    actor = ray.remote(num_cpus=1, max_concurrency=3)(Killer)
    return WorkerPool(items, lambda: actor.remote(deadly), 2, log.append)


def test_an_item_that_kills_its_workers_is_given_up_and_the_others_are_done(cluster: str) -> None:
    items, log = ["a", "b", "deadly", "c", "d"], list[str]()
    with pool(items, "deadly", log) as workers:
        answers = [answer for answer in workers.answers() if isinstance(answer, Done | Lost)]
    done = [answer for answer in answers if isinstance(answer, Done)]
    (lost,) = [answer for answer in answers if isinstance(answer, Lost)]
    assert sorted(answer.value for answer in done) == ["A", "B", "C", "D"]
    assert lost.item == "deadly"
    assert len(log) == TRIES
    assert log[1:] == ["a worker died; what it had in hand is done again: deadly"] * (TRIES - 1)
    assert max(answer.deaths for answer in done) <= 1  # who was beside it once is done by the next


def test_workers_that_die_as_they_begin_end_the_run(cluster: str) -> None:
    with pool(["a"], "open", []) as workers, pytest.raises(ChildProcessError, match="before they could begin"):
        list(workers.answers())


def test_what_a_worker_raises_is_raised_here(cluster: str) -> None:
    with pool(["wrong"], "", []) as workers, pytest.raises(FileNotFoundError) as caught:
        list(workers.answers())
    assert str(caught.value) == "the folder has vanished"


def test_a_case_that_is_given_up_fails_with_a_reason(opened: Bundle, studies: list[Study], tmp_path: Path) -> None:
    run = begin_run([opened], studies, tmp_path / "out", DEFAULTS, overwrite=False, log=print)
    with run.in_folder({}):
        case_result = _case_result(run, Lost(studies[0], RuntimeError("of Ray")))
    assert isinstance(case_result.error, OSError)
    (record,) = read_records(tmp_path / "out")
    assert (record.name, record.error, record.files) == (
        studies[0].name,
        str(case_result.error),
        case_result.record.files,
    )
    assert "workers died with this case in hand" in record.failure
    assert record.input_hash is not None
    assert "workers died" in (tmp_path / "out/failures.csv").read_text()


def test_a_case_that_was_finished_by_a_worker_before_it_died_is_done_and_not_skipped(
    opened: Bundle, studies: list[Study], tmp_path: Path
) -> None:
    run = begin_run([opened], studies, tmp_path / "out", DEFAULTS, overwrite=False, log=print)
    (case_result,) = predict_cohort([opened], studies[:1], tmp_path / "out")
    skipped: CaseResult = replace(case_result, skipped=True)
    assert _case_result(run, Done(studies[0], skipped, deaths=0)).skipped
    assert _case_result(run, Done(studies[0], skipped, deaths=1)) == case_result


@pytest.mark.parametrize("fault", ["another output", "no output", "no bundle", "another bundle"])
def test_a_worker_that_does_not_see_what_the_run_sees_refuses(
    fault: str, opened: Bundle, studies: list[Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = begin_run([opened], studies, Path("out"), DEFAULTS, overwrite=False, log=print)
    with run.in_folder({}):
        orders = _orders(run, [opened.root], Slots(1, 0, 1), trust=True)
        run.locks.acquire(orders.beacon)
        assert Worker(orders).open().locks
        wrong = {
            "another output": {"beacon": "another"},
            "no output": {"output": Path("elsewhere")},
            "no bundle": {"roots": (tmp_path / "nowhere",)},
            "another bundle": {"request": replace(orders.request, bundles=[("phantom_ct", "00")])},
        }
        with pytest.raises((FileNotFoundError, ValueError), match="file system that all share"):
            Worker(replace(orders, **wrong[fault])).open()


def test_errors_reach_the_run_as_they_were() -> None:
    for error in (torch.OutOfMemoryError("CUDA"), UnicodeError("name"), FileNotFoundError(2, "gone", "a.nii")):
        copy = pickle.loads(pickle.dumps(_portable(error)))
        assert str(copy) == str(error)
        assert [isinstance(copy, kind) for kind in FAILURES] == [isinstance(error, kind) for kind in FAILURES]


NODE = {"Alive": True, "Resources": {"CPU": 16.0, "GPU": 2.0}}
SMALL = {"Alive": True, "Resources": {"CPU": 2.0}}
GONE = {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}


@pytest.mark.parametrize(
    ("nodes", "device", "cores", "slots"),
    [
        ([SMALL], "auto", None, Slots(1, 0, 2)),
        ([SMALL, GONE], "auto", 1, Slots(2, 0, 1)),
        ([NODE, SMALL], "auto", None, Slots(2, 1, 8)),
        ([NODE, NODE], "cuda", 12, Slots(2, 1, 12)),
        ([NODE, SMALL], "cpu", None, Slots(4, 0, 4)),
        ([{"Alive": True, "Resources": {"GPU": 1.0}}], "auto", None, Slots(1, 1, 0)),
    ],
)
def test_workers_fill_the_machines(nodes: list[Any], device: str, cores: int | None, slots: Slots) -> None:
    assert find_slots(nodes, device, cores) == slots


@pytest.mark.parametrize(
    ("device", "cores", "reason"),
    [("cuda", None, "no machine of the cluster has a GPU"), ("mps", None, "auto, cpu or cuda"), ("cpu", 3, "1 to 2")],
)
def test_workers_that_no_machine_has_room_for_are_refused(device: str, cores: int | None, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        find_slots([SMALL, GONE], device, cores)


@pytest.mark.parametrize("error", [Exception, RuntimeError])
def test_a_cluster_that_does_not_start_is_one_line(
    error: type[Exception],
    bundle: Path,
    phantoms: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def slow(*_: object, **__: object) -> None:
        raise error("The current node timed out during startup.")

    monkeypatch.setattr("ray.init", slow)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.shutdown", lambda: None)  # of the cluster of the other tests
    assert (
        main(["predict", str(bundle), str(phantoms / "imagesTr"), "-o", str(tmp_path / "out"), "--ray", "local"]) == 2
    )
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == "unetfamily: local: no Ray cluster could be joined: The current node timed out during startup."


def test_an_address_at_which_nobody_listens_is_refused_at_once() -> None:
    with socket() as taken:  # and does not listen
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionError, match="no Ray cluster answers there"):
            _require_somebody(f"127.0.0.1:{taken.getsockname()[1]}")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--ray", "ray://head:10001"], "begin on the cluster"),
        (["--worker-cores", "2"], "without --ray"),
        (["--ray", "local"], "pip install 'monai-unetfamily[cluster]'"),
    ],
)
def test_what_ray_cannot_do_is_one_line(
    words: list[str], reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    monkeypatch.setattr("monai_unetfamily.integrations.ray.find_spec", lambda name: reason[0] != "p" or None)
    assert main(["predict", "phantom_ct", str(tmp_path), "-o", str(tmp_path / "out"), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert reason in line
    assert not (tmp_path / "out").exists()
