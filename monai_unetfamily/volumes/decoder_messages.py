"""Damage that a decoder in C reports on standard error alone, and decodes on: a refusal here."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from threading import Lock

_DAMAGE = (
    *(b"Corrupt JPEG data", b"Premature end of JPEG file", b"Inconsistent progression sequence"),  # libjpeg's
    b"JPEGLib: ",  # libtiff's, of whatever libjpeg has against a stream
)
_STDERR = 2
_redirecting = Lock()  # standard error is the process's, not the thread's


@contextmanager
def refuse_damaged_jpeg(path: Path) -> Iterator[None]:
    """Refuse `path` where libjpeg, which GDCM and libtiff decode with, says in the block that its stream is damaged.

    They return the pixels up to there and whatever follows. Other text that reaches standard error meanwhile, from
    other threads too, is passed on when the block ends; a process that another thread starts meanwhile writes its own
    nowhere. Where there is no standard error, nothing is seen.

    Raises:
        ValueError: the stream is damaged.

    >>> with refuse_damaged_jpeg(Path("IM1")):
    ...     _ = os.write(2, b"Premature end of JPEG file")
    Traceback (most recent call last):
    ValueError: IM1: its pixel data are damaged (Premature end of JPEG file); whole files are read, copy it again
    """
    with _redirecting, TemporaryFile() as stream:
        try:
            terminal = os.dup(_STDERR)
        except OSError:
            yield
            return
        os.dup2(stream.fileno(), _STDERR)
        try:
            yield
        finally:
            os.dup2(terminal, _STDERR)
            os.close(terminal)
            stream.seek(0)
            lines = stream.readlines()
            damage = [line for line in lines if line.startswith(_DAMAGE)]
            os.write(_STDERR, b"".join(line for line in lines if line not in damage))
    if damage:
        got = f"its pixel data are damaged ({damage[0].decode('latin-1').strip()})"
        raise ValueError(f"{path}: {got}; whole files are read, copy it again")
