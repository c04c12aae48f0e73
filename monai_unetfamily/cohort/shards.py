"""Which part of a cohort this process does, where several share it."""

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

T = TypeVar("T")

_SLURM = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP", "SLURM_ARRAY_TASK_COUNT")
_KUBERNETES = "JOB_COMPLETION_INDEX"


class Shard(NamedTuple):
    """Part `number` of `total`, counted from 1."""

    number: int
    total: int

    def of(self, items: Sequence[T]) -> list[T]:
        """Every `total`-th item: disjoint parts, which together are all, and whose sizes differ by one at the most.

        >>> Shard(2, 3).of("abcdefg")
        ['b', 'e']
        """
        return list(items[self.number - 1 :: self.total])


def choose_shard(text: str | None, environment: Mapping[str, str] = os.environ) -> Shard:
    """The shard that "i/n" means, or the environment where it says nothing: all of it, by default.

    A SLURM job array gives number and total. A Kubernetes indexed job gives the number alone: "/n" takes it from there.

    Raises:
        ValueError: another text, a number outside 1..n, an index without a total, a variable that is no whole
            number, a SLURM array with gaps.

    >>> choose_shard("2/5", {}), choose_shard(None, {}), choose_shard("/8", {"JOB_COMPLETION_INDEX": "0"})
    (Shard(number=2, total=5), Shard(number=1, total=1), Shard(number=1, total=8))
    """
    if text is None:
        return _of_slurm(environment) or _without_total(environment)
    number, slash, total = text.partition("/")
    if not number and _KUBERNETES in environment:
        number = str(_whole(environment, _KUBERNETES) + 1)
    if not slash or not number.isdecimal() or not total.isdecimal() or not 1 <= int(number) <= int(total):
        raise ValueError(
            f'shard is {text!r}; "i/n" is allowed with i from 1 to n, or "/n" in a Kubernetes indexed job, which has i.'
        )
    return Shard(int(number), int(total))


def _of_slurm(environment: Mapping[str, str]) -> Shard | None:
    if not all(name in environment for name in _SLURM):
        return None
    task, first, step, count = (_whole(environment, name) for name in _SLURM)
    number, rest = divmod(task - first, step) if step > 0 else (-1, 0)
    if rest or not 0 <= number < count:
        raise ValueError(
            f"SLURM array task {task} of {count} from {first} in steps of {step}: such an array does not say what part "
            'is meant; give it ("--shard i/n").'
        )
    return Shard(number + 1, count)


def _whole(environment: Mapping[str, str], name: str) -> int:
    try:
        return int(environment[name])
    except ValueError:
        got = f"{name} is {environment[name]!r}"
        raise ValueError(f'{got}; a whole number is allowed: mend it, or give the part ("--shard i/n").') from None


def _without_total(environment: Mapping[str, str]) -> Shard:
    if _KUBERNETES in environment:
        raise ValueError(f'{_KUBERNETES} is set, but not of how many jobs: give the shard as "/n" (--shard /n).')
    return Shard(1, 1)
