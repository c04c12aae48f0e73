"""Where a training lives: the bundle itself or a copy of it, and the log beside it."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from monai_unetfamily.bundles.bundle import copy_bundle
from monai_unetfamily.bundles.metadata import WEIGHTS
from monai_unetfamily.volumes.files import make_folder


@contextmanager
def opened_room(bundle: Path, output: Path | None) -> Iterator[Path]:
    """The folder to train in, where no other training is at work; a copy that gets no weights does not stay behind.

    Raises:
        FileExistsError: another training is at work there.
    """
    room = output or bundle
    if output:
        copy_bundle(bundle, output)
    with _alone_in(room):
        try:
            yield room
        finally:
            if output and not (output / "models" / WEIGHTS).exists():
                shutil.rmtree(output, ignore_errors=True)


@contextmanager
def _alone_in(room: Path) -> Iterator[None]:
    make_folder(room / "logs")
    lock = FileLock(room / "logs" / ".training")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        got = "another training is at work here"
        raise FileExistsError(f"{room}: {got}; wait until it has ended, or train a copy (-o).") from None
    try:
        yield
    finally:
        with suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()


class _Log(logging.FileHandler):
    """A log that a full disk cuts short, which the run's own error tells of."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Print no traceback."""


@contextmanager
def logged_to(file: Path) -> Iterator[None]:
    """Whatever MONAI and ignite log meanwhile, in a file as well."""
    make_folder(file.parent)
    handler = _Log(file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.getLogger("monai.bundle.workflows").setLevel(logging.ERROR)  # warns that its own logging is off
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
        with suppress(OSError):
            handler.close()
