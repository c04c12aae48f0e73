"""Whose turn a case is, where several runs write to one folder: one at a time computes and writes it."""

from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

_SUFFIX = ".turn"


class Turns:
    """The cases that a run has at the moment; leaving the block gives them all back.

    A case is held by a lock on a hidden file of the output folder. The system takes it back from a process that dies,
    and the file goes when the case is given back.

    Args:
        output: the folder.
        log: is told of a case that another run has, before it is waited for.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder, Turns(Path(folder), print) as turns:
    ...     turns.take("sub-01/ct")
    ...     turns.give_back("sub-01/ct")
    ...     list(Path(folder).iterdir())
    []
    """

    def __init__(self, output: Path, log: Callable[[str], None]) -> None:
        self.output, self.log = output, log
        self._held: dict[str, FileLock] = {}

    def take(self, name: str) -> None:
        """Take a case, once no other run has it.

        Raises:
            FileNotFoundError: the folder has vanished.
            OSError: it cannot be written.
        """
        require_there(self.output)
        try:
            self._held[name] = _taken(self._file(name))
        except Timeout:
            self.log(f"{name}: another run has it at the moment; waiting until it is done")
            self._held[name] = _taken(self._file(name), wait=True)

    def give_back(self, name: str) -> None:
        """Let another run have the case; of one that is not held nothing."""
        if name in self._held:
            _end(self._held.pop(name))

    def shows(self, name: str) -> bool:
        """Whether another run's file of that case can be seen from here."""
        return self._file(name).exists()

    def binds(self, name: str) -> bool:
        """Whether a case that another run has is out of reach from here, too: on some network drives it is not."""
        try:
            _taken(self._file(name)).release()
        except Timeout:
            return True
        return False

    def __enter__(self) -> "Turns":
        """The same."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Give back what is held, and clear away what runs that were killed have left."""
        for name in list(self._held):
            self.give_back(name)
        for file in self.output.glob(f".*{_SUFFIX}"):
            with suppress(Timeout, OSError):
                _end(_taken(file))

    def _file(self, name: str) -> Path:
        return self.output / f".{sha256(name.encode()).hexdigest()[:16]}{_SUFFIX}"  # a name may hold "/"


def _taken(file: Path, wait: bool = False) -> FileLock:
    lock = FileLock(file, thread_local=False)  # taken in one thread, given back in another
    lock.acquire(timeout=-1 if wait else 0)
    return lock


def _end(lock: FileLock) -> None:
    with suppress(OSError):
        Path(lock.lock_file).unlink()  # ahead of the release: who waits for it sees that, and makes a new one
    lock.release()


def require_there(output: Path) -> None:
    """Refuse an output folder that is gone: a FileNotFoundError that names it.

    >>> require_there(Path("."))
    """
    if not output.is_dir():
        raise FileNotFoundError(f"{output}: the folder has vanished; find it, or begin anew in another.")
