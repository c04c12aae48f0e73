"""Three overlapping stages give what one after the other gives, hold few items, and stop where they are told."""

from threading import Event, Lock, get_ident

import pytest
import torch

from monai_unetfamily.cohort.cohort_run import overlapped

PATIENCE = 240  # seconds that end a test that hangs


def test_order_and_results_are_those_of_one_after_the_other() -> None:
    assert list(overlapped(range(20), lambda x: x + 1, lambda x: x * x, str)) == [str((x + 1) ** 2) for x in range(20)]
    assert list(overlapped([], int, int, int)) == []


def test_compute_runs_in_the_callers_thread_and_the_others_in_one_each() -> None:
    seen: dict[str, set[int]] = {"read": set(), "compute": set(), "write": set()}

    def watch(stage: str) -> object:
        return lambda x: (seen[stage].add(get_ident()), x)[1]

    list(overlapped(range(5), watch("read"), watch("compute"), watch("write")))  # type: ignore[arg-type]
    assert seen["compute"] == {get_ident()}
    assert [len(threads) for threads in seen.values()] == [1, 1, 1]
    assert len(set.union(*seen.values())) == 3


def test_the_next_is_read_while_one_is_computed_and_written_while_the_next_is() -> None:
    read_ahead, computing = Event(), Event()

    def read(x: int) -> int:
        if x == 1:
            read_ahead.set()
        return x

    def compute(x: int) -> int:
        if x == 0:
            assert read_ahead.wait(PATIENCE)
        computing.set()
        return x

    def write(x: int) -> int:
        if x == 0:
            computing.clear()
            assert computing.wait(PATIENCE)
        return x

    assert list(overlapped(range(2), read, compute, write)) == [0, 1]


def test_no_more_than_one_item_a_stage_is_held() -> None:
    held, most, lock = 0, 0, Lock()

    def read(x: int) -> int:
        nonlocal held, most
        with lock:
            held += 1
            most = max(most, held)
        return x

    def write(x: int) -> int:
        nonlocal held
        with lock:
            held -= 1
        return x

    list(overlapped(range(50), read, lambda x: x, write))
    assert most <= 4  # one in each stage, and one handed over
    assert held == 0


@pytest.mark.parametrize("stage", ["read", "compute", "write"])
def test_an_error_is_raised_and_nothing_further_is_written(stage: str) -> None:
    written: list[int] = []

    def fail(name: str) -> object:
        def run(x: int) -> int:
            if name == stage and x == 2:
                raise ValueError("no")
            if name == "write":
                written.append(x)
            return x

        return run

    with pytest.raises(ValueError, match="no"):
        list(overlapped(range(9), *map(fail, ("read", "compute", "write"))))  # type: ignore[arg-type]
    assert written == [0, 1]


def test_a_caller_that_stops_waits_for_what_runs() -> None:
    written: list[int] = []
    stages = overlapped(range(100), lambda x: x, lambda x: x, written.append)
    next(stages)
    stages.close()
    assert len(written) <= 3


def test_the_callers_threads_stay_as_they_are() -> None:
    before = torch.get_num_threads()
    found = list(overlapped([0], lambda _: torch.get_num_threads(), lambda x: x, lambda x: x, side_threads=1))
    assert found == [1]
    assert torch.get_num_threads() == before
