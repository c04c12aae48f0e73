"""Parts of a cohort are disjoint, are all together, and are never guessed."""

import pytest

from monai_unetfamily.cohort import choose_shard
from monai_unetfamily.cohort.shards import Shard


@pytest.mark.parametrize("total", [1, 2, 3, 7, 12])
def test_parts_are_all_and_disjoint(total: int) -> None:
    parts = [Shard(number, total).of(range(10)) for number in range(1, total + 1)]
    assert sorted(i for part in parts for i in part) == list(range(10))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def slurm(task: int, first: int, step: int, count: int) -> dict[str, str]:
    names = ("ID", "MIN", "STEP", "COUNT")
    return {f"SLURM_ARRAY_TASK_{n}": str(v) for n, v in zip(names, (task, first, step, count), strict=True)}


def test_a_slurm_array_says_which_part() -> None:
    assert [choose_shard(None, slurm(t, 0, 1, 3)) for t in range(3)] == [Shard(i, 3) for i in (1, 2, 3)]
    assert [choose_shard(None, slurm(t, 2, 4, 3)) for t in (2, 6, 10)] == [Shard(i, 3) for i in (1, 2, 3)]
    assert choose_shard("1/2", slurm(5, 0, 1, 9)) == Shard(1, 2)


@pytest.mark.parametrize(
    "environment",
    [slurm(5, 1, 1, 2), slurm(4, 1, 2, 3), slurm(0, 1, 1, 3), slurm(1, 0, 0, 3), {"JOB_COMPLETION_INDEX": "0"}],
)
def test_an_environment_that_does_not_say_which_part_is_refused(environment: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="shard"):
        choose_shard(None, environment)


@pytest.mark.parametrize(
    ("text", "environment"),
    [(None, slurm(0, 0, 1, 3) | {"SLURM_ARRAY_TASK_ID": "x"}), ("/8", {"JOB_COMPLETION_INDEX": "x"})],
)
def test_a_variable_that_is_no_number_is_named(text: str | None, environment: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="(SLURM_ARRAY_TASK_ID|JOB_COMPLETION_INDEX) is 'x'; a whole number"):
        choose_shard(text, environment)


@pytest.mark.parametrize("text", ["0/3", "4/3", "1/0", "a/b", "3", "", "/3", "1/3/2", "-1/3"])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="from 1 to n"):
        choose_shard(text, {})
