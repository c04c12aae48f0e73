"""Files that appear whole or not at all, and folders to put them in."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from glob import escape
from io import BufferedWriter
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryFile
from uuid import uuid4


@contextmanager
def atomic_file(path: Path) -> Iterator[BufferedWriter]:
    """Yield a stream to a temporary file beside `path` that becomes `path` when the block ends well.

    The bytes are on the disk before the name changes; if anything fails, the temporary file is removed and
    `path` is as it was. An OSError is raised again in one line that names `path`.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     with atomic_file(Path(folder) / "report.txt") as stream:
    ...         _ = stream.write(b"done")
    ...     [p.name for p in Path(folder).iterdir()]
    ['report.txt']
    """
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.part")
    try:
        with temporary.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        cause = error if isinstance(error, OSError) else error.__context__  # torch.save hides what its stream raised
        if not isinstance(cause, OSError):
            raise
        reason = f"cannot write ({cause.strerror or cause}); name a folder that exists, has space and may be written"
        raise OSError(cause.errno, reason, str(path)) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def atomic_directory(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `folder`, which is free, that becomes it when the block ends well.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as parent:
    ...     with atomic_directory(Path(parent) / "case") as room:
    ...         (room / "liver.txt").touch()
    ...     [p.relative_to(parent).as_posix() for p in Path(parent).rglob("*.txt")]
    ['case/liver.txt']

    Raises:
        FileExistsError: where it is a file, or not empty.
    """
    require_free(folder)
    temporary = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}.part")
    make_directory(temporary)
    try:
        yield temporary
        with suppress(FileNotFoundError):
            folder.rmdir()  # empty: not every system renames onto it
        temporary.rename(folder)
    finally:
        rmtree(temporary, ignore_errors=True)


def remove_parts(path: Path) -> None:
    """Remove what `atomic_file` or `atomic_directory` left of `path` in a process that was killed.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     (Path(folder) / ".labels.nii.gz.0a1b2c3d.part").touch()
    ...     remove_parts(Path(folder) / "labels.nii.gz")
    ...     list(Path(folder).iterdir())
    []
    """
    for part in path.parent.glob(f".{escape(path.name)}.????????.part"):
        if part.is_dir():
            rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


def make_directory(folder: Path) -> None:
    """Make a folder, with those above it, where it is not there yet; it must be one that files can be written to.

    Raises:
        OSError: where that cannot be; the message names the folder and what to do.

    >>> make_directory(Path("."))
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = f"cannot write there ({error.strerror or error}); name a folder that may be made and written"
        raise OSError(error.errno, reason, str(folder)) from error


def require_free(folder: Path) -> None:
    """Refuse a folder that holds something already.

    Raises:
        FileExistsError: where it is a file, or not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(
            f"{folder}: exists and is not an empty folder; a new or empty one is needed, name another"
        )


def hash_files(files: Iterable[Path]) -> str:
    """SHA-256 over the bytes of files, each hashed by itself first; names do not count.

    Raises:
        OSError: one cannot be read.
    """
    whole = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            whole.update(hashlib.file_digest(stream, "sha256").digest())
    return whole.hexdigest()
