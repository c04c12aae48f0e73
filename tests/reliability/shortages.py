"""Shortages as exceptions, raised in the test's process: a disk that takes no more bytes, memory that is refused."""

import builtins
import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

OUT_OF_MEMORY = {
    "NumPy": lambda: MemoryError("Unable to allocate 687. MiB for an array with shape (600, 600, 500)"),
    "Python": MemoryError,
    "torch": lambda: RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 720000000 bytes. Error code 12 (Cannot allocate memory)"
    ),
    "oneDNN": lambda: RuntimeError("could not create a primitive"),
    "mmap": lambda: OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
}
_OPEN = io.open


class Disk:
    """A file system of limited size below a directory; files opened by Python code alone notice the limit.

    As on a real one, a write takes the bytes that fit, and the next write raises. Replaced files free no space.

    Attributes:
        written: bytes that it has taken so far.
    """

    def __init__(
        self, directory: Path, free: float = float("inf"), code: int = errno.ENOSPC, once: Path | None = None
    ) -> None:
        """Set the limit.

        Args:
            directory: where the limit holds.
            free: bytes that may be written.
            code: error number of the write beyond them.
            once: file from whose appearance on the limit holds; by default it holds from the beginning.
        """
        self.directory, self.free, self.code, self.once = directory, free, code, once
        self.written = 0

    @contextmanager
    def mounted(self) -> Iterator["Disk"]:
        """Limit what Python opens within the block."""
        with patch.object(io, "open", self._open), patch.object(builtins, "open", self._open):
            yield self

    def take(self, size: int) -> int:
        """Return how many of these bytes fit, at least one."""
        if self.once is not None and not self.once.exists():
            return size
        fits = int(min(size, self.free - self.written))
        if size and not fits:
            raise OSError(self.code, os.strerror(self.code))
        self.written += fits
        return fits

    def _open(self, file: Any, mode: str = "r", buffering: int = -1, *text: Any, **how: Any) -> Any:
        is_path = isinstance(file, str | os.PathLike) and "opener" not in how  # which tempfile passes
        if not (is_path and Path(file).is_relative_to(self.directory) and set(mode) & set("wax+")):
            return _OPEN(file, mode, buffering, *text, **how)
        raw = _LimitedFile(file, mode.replace("t", ""))
        raw.disk = self
        stream = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return stream if "b" in mode else io.TextIOWrapper(stream, *text, **how)


class _LimitedFile(io.FileIO):
    """A file that asks its disk before each write."""

    disk: Disk

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        return super().write(view[: self.disk.take(len(view))])


def at_call(number: int, error: Callable[[], Exception], function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, except that its call of this number, counted from one, raises."""
    calls = iter(range(1, number + 1))

    def call(*arguments: Any, **how: Any) -> Any:
        if next(calls, 0) == number:
            raise error()
        return function(*arguments, **how)

    return call
