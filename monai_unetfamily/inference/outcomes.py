"""What becomes of a case."""

from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from traceback import clear_frames

from monai_unetfamily.bundles.reasons import explained
from monai_unetfamily.inference.records import Record
from monai_unetfamily.volumes.studies import Study

FAILURES = (ValueError, OSError, MemoryError, RuntimeError)  # of one case: the others go on


@dataclass(frozen=True)
class Outcome:
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


def failed(study: Study, record: Record, before: Record | None, error: Exception) -> Outcome:
    """A failed case; what an earlier run wrote of it stays known, so that a file changed since is kept."""
    return Outcome(study, failure(record, before, explained(error)), error=_without_voxels(error))


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
