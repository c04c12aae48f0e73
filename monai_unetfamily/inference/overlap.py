"""Three stages of work on one item after another, overlapping: while one is computed, the next is read."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Generic, TypeVar

import torch

T = TypeVar("T")
Read = TypeVar("Read")
Done = TypeVar("Done")
Written = TypeVar("Written")


def overlapped(
    items: Iterable[T],
    read: Callable[[T], Read],
    compute: Callable[[Read], Done],
    write: Callable[[Done], Written],
    *,
    side_threads: int | None = None,
) -> Iterator[Written]:
    """Yield `write(compute(read(item)))` of each item, in order.

    `compute` runs in the caller's thread, `read` and `write` in one thread each: at any time one item is read, one
    computed and one written, and no more are held. What a stage raises is raised here, and nothing further begins.
    Where the caller stops, or closes the generator, the stages that run are finished first.

    Args:
        items: are taken one at a time, as the first stage is free.
        read, compute, write: the stages.
        side_threads: of torch, for `read` and `write` each; None leaves them as many as the caller's. On a machine
            without a GPU, 1 leaves the cores to `compute`.

    >>> list(overlapped([1, 2, 3], lambda x: x + 1, lambda x: x * 10, str))
    ['20', '30', '40']
    """
    with ExitStack() as stack:
        reader, writer = (stack.enter_context(_one_thread(side_threads)) for _ in range(2))
        if side_threads is not None:
            torch.set_num_threads(torch.get_num_threads())  # a part of what a thread sets for itself holds for all
        last: Future[Written] | None = None
        for coming in _ahead(items, read, reader):
            done = compute(coming.result())
            if last is not None:
                yield last.result()
            last = writer.submit(write, done)
            del done, coming  # or a case more would be held
        if last is not None:
            yield last.result()


class Stages(Generic[T, Read, Done, Written]):
    """The three stages of `overlapped` for items that come from outside, one a call, from several threads.

    Each stage has a thread of its own, in which it takes one item at a time: of three callers one is read, one computed
    and one written.

    Args:
        read, compute, write: the stages.
        threads: of torch, for `compute`.
        side_threads: for the two others; None leaves them as many.

    >>> stages = Stages(lambda x: x + 1, lambda x: x * 10, str, threads=1)
    >>> stages.do(1)
    '20'
    """

    def __init__(
        self,
        read: Callable[[T], Read],
        compute: Callable[[Read], Done],
        write: Callable[[Done], Written],
        *,
        threads: int,
        side_threads: int | None = None,
    ) -> None:
        self.read, self.compute, self.write = read, compute, write
        self._reader, self._writer = _one_thread(side_threads), _one_thread(side_threads)
        self._computer = _one_thread(threads)  # the last that sets them: a part of them holds for all

    def do(self, item: T) -> Written:
        """`write(compute(read(item)))`, each in its turn."""
        done = self._computer.submit(self.compute, self._reader.submit(self.read, item).result()).result()
        return self._writer.submit(self.write, done).result()


def _one_thread(threads: int | None) -> ThreadPoolExecutor:
    executor = ThreadPoolExecutor(1)
    if threads is not None:
        executor.submit(_limit_this_thread, threads).result()
    return executor


def _limit_this_thread(threads: int) -> None:
    torch.set_num_threads(threads)
    torch.get_num_threads()  # torch's first look in a thread takes over what was set last anywhere: let it be this


def _ahead(items: Iterable[T], read: Callable[[T], Read], reader: ThreadPoolExecutor) -> Iterator[Future[Read]]:
    """Each item's reading, begun before it is asked for."""
    before: Future[Read] | None = None
    for item in items:
        coming = reader.submit(read, item)
        if before is not None:
            yield before
        before = coming
    if before is not None:
        yield before
