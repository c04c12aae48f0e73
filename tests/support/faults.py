"""Commands in processes of their own, into which faults are put: they are killed, lose a worker, or may not write.

The processes are forked from one that has imported everything (multiprocessing's forkserver), so that each costs
milliseconds where a new interpreter costs seconds.
"""

import multiprocessing
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(
    [
        "torch",
        "monai_unetfamily.cli",
        "monai_unetfamily.cohort.cohort_run",
        "monai_unetfamily.cohort.preview",
        "monai_unetfamily.training.training_run",
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
        self.process.join()
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
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background processes ignore
    multiprocessing.set_start_method("fork", force=True)  # of loaders, as in a command that was not forked itself
    if fault:
        fault(*how)
    sys.exit(main(arguments))


def die_at(folder: Path, place: str, times: int = 1, number: signal.Signals = signal.SIGKILL) -> None:
    """Send the process a signal as it is about to change the folder there, for the so-manieth time; "" is anywhere."""
    left = times

    def watch(change: str) -> None:
        nonlocal left
        is_here = change.startswith(place)
        left -= is_here
        if is_here and not left:
            signal.pthread_kill(threading.main_thread().ident, number)  # where the system delivers Ctrl-C

    watch_changes(folder, watch)


def die_at_step(number: int) -> None:
    """`kill -9` before the optimizer's step of this number, counted from one."""
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    left = number

    def count(*_: object) -> None:
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    register_optimizer_step_pre_hook(count)


def watch_changes(folder: Path, watch: Callable[[str], object]) -> None:
    """Call for each file that is about to be written, renamed to or removed: "rename models/model.pt"."""

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        path = _changed(event, arguments)
        if path is not None and str(path).startswith(f"{folder}/"):
            name = _CHANCE.sub("", os.path.relpath(path, folder))
            watch(f"{event.removeprefix('os.')} {name}")

    sys.addaudithook(hear)


def _changed(event: str, arguments: tuple[Any, ...]) -> str | os.PathLike[str] | None:
    """The path that an audit event says is about to be written, renamed to, removed or made."""
    if event == "open":
        path = arguments[0] if (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR) else None
    else:
        path = arguments[_CHANGES[event]] if event in _CHANGES else None
    return path if isinstance(path, str | os.PathLike) else None


def refuse_changes(directory: Path, code: int) -> None:
    """Raise this error for each change to the directory or below it, as a read-only file system does."""

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        path = _changed(event, arguments)
        if path is not None and Path(path).is_relative_to(directory):
            raise OSError(code, os.strerror(code), str(path))

    sys.addaudithook(refuse)


def lose_workers(once: Path) -> None:
    """Kill a loader's worker at the first case that it reads after this file has appeared."""
    import torch
    from torch.utils.data import get_worker_info

    load = torch.load

    def load_or_die(*arguments: Any, **how: Any) -> Any:
        if get_worker_info() is not None and once.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return load(*arguments, **how)

    torch.load = load_or_die
