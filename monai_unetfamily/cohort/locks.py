"""Locks on the cases of an output directory that several runs write to: one run at a time processes a case."""

from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

_SUFFIX = ".case.lock"


class CaseLocks:
    """The locks that a run holds on cases; leaving the block releases them all.

    A lock is held on a hidden file of the output directory. The system releases the locks of a process that dies, and
    the file is deleted when the lock is released.

    Args:
        output: the output directory.
        log: called with a line before the run waits for a case that another run has locked.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as directory, CaseLocks(Path(directory), print) as locks:
    ...     locks.acquire("sub-01/ct")
    ...     locks.release("sub-01/ct")
    ...     list(Path(directory).iterdir())
    []
    """

    def __init__(self, output: Path, log: Callable[[str], None]) -> None:
        self.output, self.log = output, log
        self._held: dict[str, FileLock] = {}

    def acquire(self, name: str) -> None:
        """Lock a case; wait while another run has it locked.

        Raises:
            FileNotFoundError: the output directory has vanished.
            OSError: it cannot be written.
        """
        require_directory(self.output)
        try:
            self._held[name] = _acquired(self._file(name))
        except Timeout:
            self.log(f"{name}: another run has locked it; waiting until it is done")
            self._held[name] = _acquired(self._file(name), wait=True)

    def release(self, name: str) -> None:
        """Release a case; does nothing where it is not locked by this run."""
        if name in self._held:
            _release(self._held.pop(name))

    def is_visible(self, name: str) -> bool:
        """Whether the lock file of another run on that case can be seen from this machine."""
        return self._file(name).exists()

    def excludes_others(self, name: str) -> bool:
        """Whether a case that another run has locked cannot be locked here; some network drives allow it."""
        try:
            _acquired(self._file(name)).release()
        except Timeout:
            return True
        return False

    def __enter__(self) -> "CaseLocks":
        """Return the locks themselves."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Release all locks, and delete the lock files that killed runs have left."""
        for name in list(self._held):
            self.release(name)
        for file in self.output.glob(f".*{_SUFFIX}"):
            with suppress(Timeout, OSError):
                _release(_acquired(file))

    def _file(self, name: str) -> Path:
        return self.output / f".{sha256(name.encode()).hexdigest()[:16]}{_SUFFIX}"  # a name may contain "/"


def _acquired(file: Path, wait: bool = False) -> FileLock:
    lock = FileLock(file, thread_local=False)  # acquired in one thread, released in another
    lock.acquire(timeout=-1 if wait else 0)
    return lock


def _release(lock: FileLock) -> None:
    with suppress(OSError):
        Path(lock.lock_file).unlink()  # before the release: a waiting process notices, and makes a new file
    lock.release()


def require_directory(output: Path) -> None:
    """Raise FileNotFoundError where the output directory has vanished.

    >>> require_directory(Path("."))
    """
    if not output.is_dir():
        raise FileNotFoundError(
            f"{output}: the output directory has vanished; restore it, or start again in another one."
        )
