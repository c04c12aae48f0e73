"""Processes of their own that start at once: forked from a server that has imported what else takes them seconds."""

import os
import signal
import sys
from collections.abc import Callable
from multiprocessing import get_context, set_start_method
from multiprocessing.connection import Connection
from pathlib import Path
from runpy import run_module
from typing import TextIO

import torch

from monai_unetfamily.cli import main

PACKAGES = ["torch", "monai.bundle", "monai.engines", "monai_unetfamily.cli", "monai_unetfamily.training.training_run"]


class Child:
    """A call in a process of its own, running; `said` has the lines that it prints, as it prints them."""

    def __init__(self, call: Callable[..., object], *arguments: object) -> None:
        context = get_context("forkserver")
        context.set_forkserver_preload(PACKAGES)
        reader, writer = context.Pipe(duplex=False)
        self.process = context.Process(target=_run, args=(writer, call, *arguments))
        self.process.start()
        writer.close()
        self.said: TextIO = os.fdopen(os.dup(reader.fileno()))
        reader.close()

    @property
    def runs(self) -> bool:
        return self.process.is_alive()

    def send(self, number: signal.Signals) -> None:
        if self.process.pid is not None and self.runs:
            os.kill(self.process.pid, number)

    def wait(self) -> int | None:
        """Its exit status."""
        self.process.join()
        self.said.close()
        return self.process.exitcode


def command(*words: str) -> Child:
    """`unetfamily WORDS`."""
    return Child(main, words)


def module(name: str, *words: str, folder: Path) -> Child:
    """`python -m NAME WORDS`, from a folder."""
    return Child(_run_module, name, words, folder)


def _run_module(name: str, words: tuple[str, ...], folder: Path) -> None:
    os.chdir(folder)
    sys.argv = [name, *words]
    run_module(name, run_name="__main__", alter_sys=True)


def _run(writer: Connection, call: Callable[..., object], *arguments: object) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which what runs in the background of a shell ignores
    torch.set_num_threads(1)
    set_start_method(None, force=True)  # the system's own again: its loader's workers end when it is killed
    for number in (1, 2):
        os.dup2(writer.fileno(), number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", 1, closefd=False) for number in (1, 2))
    sys.exit(call(*arguments))
