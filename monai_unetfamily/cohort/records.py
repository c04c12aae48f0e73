"""Records and results of the cases of a cohort."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from glob import escape
from pathlib import Path
from time import perf_counter
from traceback import clear_frames
from typing import Any

from monai_unetfamily.bundles import explained
from monai_unetfamily.io import Study, atomic_file, hash_files, make_directory
from monai_unetfamily.prediction import Request
from monai_unetfamily.reporting import Measure

# What is known of each case of a cohort: one JSON file beside its label map, from which everything else follows.
#
# A case is finished when its record names the same bundle, settings and input, by their hashes, and the files that it
# wrote are whole, by theirs. Whatever else is there is done again: a truncated file is never taken for a result.


SUFFIX = ".json"
UNFINISHED = ""  # the hash of a file that is about to be written
_APART = (".hdr", ".img", ".mhd", ".nhdr")  # headers without voxels, and the other way round
_KIND = "monai_unetfamily case"  # what tells a record from other JSON files of the folder


@dataclass(frozen=True)
class Record:
    """What became of a case.

    Attributes:
        name: of the study.
        request: that it was done for.
        files: that hold it.
        input_hash: of their bytes; None where they could not be read.
        outputs: each file written, relative to the output folder -> its hash.
        error: why there are no outputs.
        labels: label id -> its name and colour.
        classes: the rows of measures, one a class.
        notes: of what was read and done.
        seconds: of each stage.
    """

    name: str
    request: Request
    files: tuple[str, ...]
    input_hash: str | None = None
    outputs: Mapping[str, str] = field(default_factory=dict)
    error: str | None = None
    labels: Mapping[str, Any] = field(default_factory=dict)
    classes: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def failure(self) -> str:
        """Why there is no result; empty where there is one."""
        unfinished = UNFINISHED in self.outputs.values()
        return self.error or ("was not finished; run the same command again" if unfinished else "")


def record_file(output: Path, name: str) -> Path:
    """Where the record of a study lies."""
    return output / f"{name}{SUFFIX}"


def write_record(record: Record, output: Path) -> None:
    """Write a record, whole or not at all.

    Raises:
        OSError: the folder cannot be written.
    """
    file = record_file(output, record.name)
    make_directory(file.parent)
    with atomic_file(file) as stream:
        stream.write((json.dumps({"kind": _KIND} | asdict(record), indent=1) + "\n").encode())


def read_record(file: Path) -> Record | None:
    """A case's record; None where there is none, or a file that is something else.

    >>> read_record(Path("absent.json")) is None
    True
    """
    try:
        found = json.loads(file.read_text("utf-8"))
        if not isinstance(found, dict) or found.pop("kind", None) != _KIND:
            return None
        for row in found["classes"]:
            Measure(**row)
        lists = {key: tuple(value) for key, value in found.items() if isinstance(value, list)}
        return Record(**found | lists | {"request": Request(**found["request"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def read_records(output: Path) -> list[Record]:
    """All records of a folder, by name; those of a folder in it that another run writes to are none of them."""
    files = sorted(file for file in output.rglob(f"*{SUFFIX}") if not file.name.startswith("."))
    found = ((file, read_record(file)) for file in files)
    return [record for file, record in found if record and record_file(output, record.name) == file]


def is_finished(before: Record, now: Record, output: Path) -> bool:
    """Whether a case was done before for the request and the input of now, and its files are as they were written."""
    return (
        before.error is None
        and now.input_hash is not None
        and before.input_hash == now.input_hash
        and matches_request(before, now.request)
        and bool(before.outputs)
        and all(holds(output / name, hashed) for name, hashed in before.outputs.items())
    )


def matches_request(record: Record, request: Request) -> bool:
    """Whether a case was done for this request."""
    return bool(_as_json(record.request) == _as_json(request))


def hash_study(study: Study) -> str | None:
    """`hash_files` of a study, the voxels of headers that lie apart included; None where a file cannot be read.

    A pipe is none: it would be waited for.
    """
    try:
        files = [part for file in study.files for part in _parts(file)]
        return hash_files(files) if all(file.is_file() for file in files) else None
    except OSError:
        return None


def _as_json(request: Request) -> Any:
    return json.loads(json.dumps(asdict(request)))  # where a tuple is a list


def _parts(file: Path) -> list[Path]:
    """A file, and those of its name whose voxels its header may mean."""
    beside = file.parent.glob(f"{escape(file.stem)}.*") if file.suffix.lower() in _APART else []
    return sorted({file, *beside})


def holds(file: Path, hashed: str) -> bool:
    """Whether a file is there with these bytes."""
    try:
        return hash_files([file]) == hashed
    except OSError:
        return False


# What becomes of a case.

FAILURES = (ValueError, OSError, MemoryError, RuntimeError)  # of one case: the others go on


@dataclass(frozen=True)
class CaseResult:
    """What became of one case.

    Attributes:
        study: the case.
        record: what is kept of it.
        output: its label map; the folder of its masks, split; None where it failed.
        skipped: whether it was finished before.
        error: that stopped it.
    """

    study: Study
    record: Record
    output: Path | None = None
    skipped: bool = False
    error: Exception | None = None


def timed(record: Record, stage: str, start: float) -> Record:
    """The record with the seconds of a stage that began at `start` (`perf_counter`)."""
    return replace(record, seconds={**record.seconds, stage: round(perf_counter() - start, 3)})


def failed(study: Study, record: Record, before: Record | None, error: Exception) -> CaseResult:
    """A failed case; what an earlier run wrote of it stays known, so that a file changed since is kept."""
    return CaseResult(study, failure(record, before, explained(error)), error=_without_voxels(error))


def failure(record: Record, before: Record | None, reason: str | None) -> Record:
    """The record of a case that failed, and the files that `before` knows."""
    return replace(record, error=reason, outputs=before.outputs if before else {})


def _without_voxels(error: Exception) -> Exception:
    """The error, the frames of its traceback and its causes' emptied: they would hold the case's arrays."""
    link: BaseException | None = error
    while link is not None:
        clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__
    return error
