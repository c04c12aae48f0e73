"""Commands in processes of their own, into which faults are put: they are killed, starved, or locked out.

The processes are forked from one that has imported everything (multiprocessing's forkserver), so that each costs
milliseconds where a new interpreter costs seconds.
"""

import multiprocessing
import os
import re
import resource
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(
    [
        "torch",
        "monai_unetfamily.cli",
        "monai_unetfamily.inference.batch",
        "monai_unetfamily.inference.plan",
        "monai_unetfamily.training.run",
        "tensorboard.compat.proto.event_pb2",
        "torch.utils.tensorboard",
    ]
)
_CHANGES = {"os.rename": 1, "os.remove": 0, "os.mkdir": 0}  # audit event -> which argument is named
_CHANCE = re.compile(r"[0-9a-f]{8}\.(?=part$)|[0-9a-f]{16}(?=\.)")  # of names, what differs between runs


class Ended(NamedTuple):
    """How a process ended: its exit status (of a killed one minus the signal), and what it said."""

    status: int
    said: str


class Running(NamedTuple):
    """A process, and where it speaks to."""

    process: Any
    log: Path

    def end(self) -> Ended:
        self.process.join(timeout=300)
        return Ended(self.process.exitcode, self.log.read_text("utf-8", "replace"))


def start(log: Path, arguments: Sequence[str | Path], fault: Callable[..., None] | None = None, *how: Any) -> Running:
    """`unetfamily ARGUMENTS` in a process of its own, in which the fault is called first."""
    process = FORKED.Process(target=_run, args=(log, [str(a) for a in arguments], fault, how))
    process.start()
    return Running(process, log)


def run(log: Path, arguments: Sequence[str | Path], fault: Callable[..., None] | None = None, *how: Any) -> Ended:
    """The same, to its end."""
    return start(log, arguments, fault, *how).end()


def _run(log: Path, arguments: list[str], fault: Callable[..., None] | None, how: tuple[Any, ...]) -> None:
    import torch

    from monai_unetfamily.cli import main

    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # of loaders, as in a command that was not forked itself
    if fault:
        fault(*how)
    sys.exit(main(arguments))


def die_at(folder: Path, place: str, times: int = 1) -> None:
    """`kill -9` as the process is about to change the folder there, for the so-manieth time; "" is anywhere."""
    left = times

    def watch(change: str) -> None:
        nonlocal left
        left -= change.startswith(place)
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    watch_changes(folder, watch)


def note_changes(folder: Path, notes: Path) -> None:
    """Write down each change to the folder, a line each."""
    stream = notes.open("a", buffering=1)
    watch_changes(folder, lambda change: stream.write(f"{change}\n"))


def watch_changes(folder: Path, watch: Callable[[str], object]) -> None:
    """Call for each file that is about to be written, renamed to or removed: "rename models/model.pt"."""

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, writes = arguments[0], bool((arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR))
        else:
            path, writes = (arguments[_CHANGES[event]], True) if event in _CHANGES else (None, False)
        if writes and isinstance(path, str | os.PathLike) and str(path).startswith(f"{folder}/"):
            name = _CHANCE.sub("", os.path.relpath(path, folder))
            watch(f"{event.removeprefix('os.')} {name}")

    sys.addaudithook(hear)


def lose_workers(once: Path) -> None:
    """Kill the first loader that is at work after this file has appeared."""

    def lose() -> None:
        while not once.exists():
            time.sleep(0.002)
        before = multiprocessing.active_children()  # they have done all that is wanted of them
        while not (workers := [child for child in multiprocessing.active_children() if child not in before]):
            time.sleep(0.002)
        workers[0].kill()

    threading.Thread(target=lose, daemon=True).start()


def fill_disk(folder: Path, once: Path, left: int = 0) -> None:
    """Leave so many bytes of a small file system, once this file has appeared."""

    def fill() -> None:
        while not once.exists():
            time.sleep(0.002)
        fill_now(folder, left)

    threading.Thread(target=fill, daemon=True).start()


def fill_now(folder: Path, left: int = 0) -> None:
    """Leave so many bytes of a small file system."""
    free = shutil.disk_usage(folder).free
    (folder / "ballast").write_bytes(bytes(max(0, free - left)))


def with_memory(megabytes: int) -> None:
    """No more address space than is taken now, and so much."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + (megabytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def with_files_of(kilobytes: int) -> None:
    """No file may grow beyond this: what a disk that is full answers to a write, where none can be mounted."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes << 10, kilobytes << 10))
