"""Work that Ray's actors do, and none of it lost: when a worker dies, what it had in hand goes to the others."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Generic, NamedTuple, TypeVar

HELD = 3  # items that a worker has at a time: one is read, one computed, one written
TRIES = 3  # workers that may die of an item
_PATIENCE = 60  # seconds until it is said that no worker has begun

T = TypeVar("T")


@dataclass(eq=False)
class _Task(Generic[T]):
    item: T
    deaths: int = 0  # of workers that had it in hand


@dataclass(eq=False)
class _Worker(Generic[T]):
    """An actor, and what it is asked for at the moment: promise -> task, or None for its opening."""

    actor: Any
    asked: dict[Any, _Task[T] | None] = field(default_factory=dict)

    @property
    def opens(self) -> bool:
        return None in self.asked.values()

    def takes(self, task: _Task[T]) -> bool:
        """Whether it may have this task too; one of which a worker died, perhaps, is done alone."""
        apart = any(held is None or held.deaths for held in self.asked.values())
        return not self.asked if task.deaths else not apart and len(self.asked) < HELD


class Opened(NamedTuple):
    """What a worker's `open` gave."""

    value: Any


class Done(NamedTuple, Generic[T]):
    """What a worker's `do` gave for an item, of which other workers died before."""

    item: T
    value: Any
    deaths: int


class Lost(NamedTuple, Generic[T]):
    """An item that is given up, as `TRIES` workers died of it; and what Ray said of the last one."""

    item: T
    reason: Exception


class Crew(Generic[T]):
    """Workers that share items; leaving the block ends them.

    A worker is asked to `open` first, then to `do` up to `HELD` items at a time. One that dies is replaced. What it had
    in hand is done again, each item alone, once the others are done: so one that kills its worker is found out.

    Args:
        items: to do.
        hire: makes an actor, of `HELD` threads, with methods `open()` and `do(item)`.
        size: number of workers.
        log: is told of workers that die, and where none begins.
        name: of an item, for the log.
    """

    def __init__(
        self,
        items: Iterable[T],
        hire: Callable[[], Any],
        size: int,
        log: Callable[[str], None],
        name: Callable[[T], str] = str,
    ) -> None:
        self.hire, self.size, self.log, self.name = hire, size, log, name
        self._fresh, self._suspects = deque(_Task(item) for item in items), deque[_Task[T]]()
        self._workers: list[_Worker[T]] = []
        self._stillborn = 0  # workers in a row that died before they had opened

    def __enter__(self) -> "Crew[T]":
        """The same, its workers on their way."""
        for _ in range(min(self.size, len(self._fresh))):
            self._hire()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the workers, whatever they are at."""
        while self._workers:
            self._dismiss(self._workers[-1])

    def answers(self) -> Iterator[Opened | Done[T] | Lost[T]]:
        """What becomes of each worker and of each item, as it comes.

        Raises:
            ChildProcessError: workers die before they can begin, one after another.
            Exception: what a worker's method raised.
        """
        from ray import get
        from ray.exceptions import RayError, RayTaskError

        while self._fresh or self._suspects or any(worker.asked for worker in self._workers if not worker.opens):
            self._hand_out()
            worker, promise = self._next()
            try:
                value = get(promise)
            except RayTaskError as error:
                raise error.cause from None
            except RayError as error:  # died, out of reach, or its answer is gone with its machine
                yield from self._lose(worker, error)
                continue
            task = worker.asked.pop(promise)
            self._stillborn = 0
            yield Opened(value) if task is None else Done(task.item, value, task.deaths)

    def _hire(self) -> None:
        worker = _Worker[T](self.hire())
        worker.asked[worker.actor.open.remote()] = None
        self._workers.append(worker)

    def _dismiss(self, worker: _Worker[T]) -> None:
        from ray import kill

        self._workers.remove(worker)
        kill(worker.actor)

    def _hand_out(self) -> None:
        """Give each worker one item, then each a second: the last ones end at about the same time."""
        for _ in range(HELD):
            for worker in sorted(self._workers, key=lambda worker: len(worker.asked)):
                queue = self._fresh or self._suspects
                if queue and worker.takes(queue[0]):
                    task = queue.popleft()
                    worker.asked[worker.actor.do.remote(task.item)] = task

    def _next(self) -> tuple[_Worker[T], Any]:
        """The next answer that is there."""
        from ray import wait

        askers = {promise: worker for worker in self._workers for promise in worker.asked}
        timeout: float | None = _PATIENCE
        while not (ready := wait(list(askers), timeout=timeout)[0]):
            timeout = None
            if all(worker.opens for worker in self._workers):
                self.log("no worker has begun yet: the cluster has nothing free, or starts slowly; waiting")
        return askers[ready[0]], ready[0]

    def _lose(self, worker: _Worker[T], error: Exception) -> Iterator[Lost[T]]:
        """Replace a worker; of what it had in hand, put back what may be done again."""
        self._stillborn += worker.opens
        if self._stillborn == TRIES:
            raise ChildProcessError(f"{TRIES} workers died before they could begin: {error}")
        tasks = [task for task in worker.asked.values() if task is not None]
        self._dismiss(worker)
        self._hire()
        names = ", ".join(self.name(task.item) for task in tasks)
        self.log(f"a worker died; what it had in hand is done again: {names or 'nothing'}")
        for task in tasks:
            task.deaths += 1
            if task.deaths == TRIES:
                yield Lost(task.item, error)
            else:
                self._suspects.append(task)
