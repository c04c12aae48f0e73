"""A cohort: thousands of cases through one bundle, or several, none lost.

The next case is read and preprocessed and the last one written while the network has the present one. Whatever a case
does, the others are done; what is finished is not done again (`records`); a run that is killed at any moment goes on by
the same call, to the same results.
"""

import errno
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from traceback import clear_frames
from typing import NamedTuple

import torch

from monai_unetfamily.bundles.bundle import Bundle
from monai_unetfamily.bundles.metadata import knows_phantoms_alone
from monai_unetfamily.inference.box import format_box
from monai_unetfamily.inference.cohort import write_cohort
from monai_unetfamily.inference.ensemble import check_ensemble
from monai_unetfamily.inference.outputs import Outputs, outputs_of
from monai_unetfamily.inference.overlap import overlapped
from monai_unetfamily.inference.predictor import load_case
from monai_unetfamily.inference.presence import watch_guides
from monai_unetfamily.inference.records import (
    UNFINISHED,
    Record,
    Request,
    hash_files,
    hash_study,
    is_finished,
    read_record,
    record_file,
    write_record,
)
from monai_unetfamily.inference.segment import Case, Progress, segment
from monai_unetfamily.inference.settings import DEFAULTS, Settings, adapt_all, request_of
from monai_unetfamily.inference.turns import Turns, require_there
from monai_unetfamily.volumes.files import make_folder
from monai_unetfamily.volumes.nifti import Labels
from monai_unetfamily.volumes.studies import Image, Study

_LOGGER = logging.getLogger(__name__)
FAILURES = (ValueError, OSError, MemoryError, RuntimeError)  # of one case: the others go on
_FOLDER_UNUSABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOENT, errno.EACCES, errno.EPERM, errno.EIO)


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


class _Loaded(NamedTuple):
    """A case that waits for the network, and the record that an earlier run left."""

    study: Study
    record: Record
    before: Record | None
    image: Image
    case: Case


class _Segmented(NamedTuple):
    """A case that waits to be written."""

    study: Study
    record: Record
    before: Record | None
    image: Image
    labels: Labels
    presence: dict[int, float]


def predict_cohort(
    bundles: Sequence[Bundle],
    studies: Sequence[Study],
    output: Path,
    settings: Settings = DEFAULTS,
    *,
    overwrite: bool = False,
    log: Callable[[str], None] = _LOGGER.info,
    progress: Callable[[Study, Progress], None] = lambda study, step: None,
) -> Iterator[Outcome]:
    """Segment studies into a folder, and yield what became of each, in order.

    Each label map is `<name>.nii.gz`, or `<name>.png` of a picture (`outputs` says what else there is); its record
    `<name>.json` lies beside it. A case that fails has a record that says why. In the end, or where the caller stops,
    the tables and the page of `cohort.write_cohort` are written.

    Args:
        bundles: one, or several whose class probabilities are averaged.
        studies: as `studies.find_studies` finds them; names must differ.
        output: folder, which other runs may write to at the same time; of the same case one waits for the other.
        settings: what is asked for.
        overwrite: do everything again, and replace what is there.
        log: is given a line where bundles of an ensemble differ, of each that knows phantoms alone, and of a case that
            another run has at the moment.
        progress: is told how far the network is with a case.

    Raises:
        FileExistsError: files in the way that no run with these bundles and settings wrote; nothing was done.
        ValueError: settings that the bundles cannot meet, outputs that would replace inputs; nothing was done.
        OSError: the output cannot be written any more; what is done stays.
    """
    check_ensemble(bundles, log)
    for bundle in bundles:
        if knows_phantoms_alone(bundle.root):
            log(f"{bundle.root.name} knows phantoms alone: never use what it says of a patient")
    request = request_of(bundles, settings)
    turns = Turns(output, log)
    adapted = adapt_all(bundles, settings)
    outputs = outputs_of(bundles, output, settings, request)
    run = _Run(adapted, output, settings, request, overwrite, progress, turns, outputs)
    run.outputs.require_room(studies, request, overwrite)
    make_folder(output)
    threads = 1 if bundles[0].device.type == "cpu" else None  # the network keeps its cores
    try:
        with turns:
            yield from overlapped(studies, run.read, run.compute, run.write, side_threads=threads)
    finally:
        if output.is_dir():
            write_cohort(output, request, bundles[0].names, bundles[0].device)


@dataclass(frozen=True)
class _Run:
    bundles: Sequence[Bundle]
    output: Path
    settings: Settings
    request: Request
    overwrite: bool
    progress: Callable[[Study, Progress], None]
    turns: Turns
    outputs: Outputs

    def read(self, study: Study) -> _Loaded | Outcome:
        """Hash and read a study and run the preprocessing, unless it is finished."""
        before = read_record(record_file(self.output, study.name))
        start, record = perf_counter(), Record(study.name, self.request, tuple(map(str, study.files)))
        try:
            record = replace(record, input_hash=hash_study(study), notes=study.notes)
            if before and not self.overwrite and is_finished(before, record, self.output):
                return Outcome(study, before, self.outputs.target(study), skipped=True)
            with torch.inference_mode():
                reading = {name: getattr(self.settings, name) for name in ("nan", "gaps", "max_voxels")}
                image, case = load_case(self.bundles[0], study, **reading)
            if self.outputs.segmentations:
                self.outputs.segmentations.check(study, image)
        except FAILURES as error:
            return _failed(study, record, before, error)
        record = replace(record, notes=(*record.notes, *image.notes))
        return _Loaded(study, _timed(record, "read", start), before, image, case)

    def compute(self, work: _Loaded | Outcome) -> _Segmented | Outcome:
        """Run the network, and bring its scores back to the source's grid, in this case's turn."""
        if isinstance(work, Outcome) and work.skipped:
            return work
        work = self._in_turn(work)
        if isinstance(work, Outcome):
            return work
        start, (study, record, before, image, case) = perf_counter(), work
        try:
            if self.settings.save_scores:
                self._claim(study, record, before)
            with watch_guides([bundle.network for bundle in self.bundles]) as presence:
                labels, notes = self._segment(study, image, case)
        except FAILURES as error:
            return _failed(study, record, before, error)
        record = replace(record, notes=(*record.notes, *notes))
        return _Segmented(study, _timed(record, "network", start), before, image, labels, presence.probabilities())

    def _in_turn(self, work: _Loaded | Outcome) -> _Loaded | Outcome:
        """The case, once no other run has it; as another has finished it meanwhile, perhaps."""
        study = work.study
        self.turns.take(study.name)
        self.outputs.require_room([study], self.request, self.overwrite)
        before = read_record(record_file(self.output, study.name))
        if before and not self.overwrite and is_finished(before, work.record, self.output):
            return Outcome(study, before, self.outputs.target(study), skipped=True)
        if isinstance(work, Outcome):
            return replace(work, record=_failure(work.record, before, work.record.error))
        return work._replace(before=before)

    def _segment(self, study: Study, image: Image, case: Case) -> tuple[Labels, list[str]]:
        box = self.settings.box
        notes = [f"segmented within {format_box(box)} alone: volumes are of what lies there"] if box else []
        with self.outputs.scores(study, image) as sink, torch.inference_mode():
            for step in segment(self.bundles, case, box=box, log=notes.append, sink=sink):
                self.progress(study, step)
        return step.labels, notes

    def _claim(self, study: Study, record: Record, before: Record | None) -> None:
        """Say whose the files are that are about to be written, should the run end meanwhile."""
        held = before.outputs if before else dict.fromkeys(self.outputs.planned(study), UNFINISHED)
        scores = dict.fromkeys(self.outputs.scores_planned(study), UNFINISHED)
        write_record(replace(record, outputs={**held, **scores}), self.output)

    def write(self, work: _Segmented | Outcome) -> Outcome:
        """Write all that a case gives, its record last; of one that failed the record alone. Its turn is over then."""
        try:
            return self._write_once(work)
        finally:
            self.turns.give_back(work.study.name)

    def _write_once(self, work: _Segmented | Outcome) -> Outcome:
        require_there(self.output)
        if isinstance(work, Outcome):
            if not work.skipped:
                write_record(work.record, self.output)
            return work
        try:
            return self._write(work)
        except FAILURES as error:
            if isinstance(error, OSError) and error.errno in _FOLDER_UNUSABLE:
                raise
            outcome = _failed(work.study, work.record, read_record(record_file(self.output, work.study.name)), error)
        write_record(outcome.record, self.output)
        return outcome

    def _write(self, work: _Segmented) -> Outcome:
        start, (study, record, before, image, labels, presence) = perf_counter(), work
        notes = self.outputs.clear(study, before)
        self._claim(study, record, None)
        written = self.outputs.write(study, image, labels, presence)
        record = replace(
            record,
            outputs={file: hash_files([self.output / file]) for file in written.files},
            labels=written.labels,
            classes=tuple(row._asdict() for row in written.measures),
            notes=(*record.notes, *notes, *written.notes),
        )
        record = _timed(record, "write", start)
        write_record(record, self.output)
        return Outcome(study, record, self.outputs.target(study))


def _timed(record: Record, stage: str, start: float) -> Record:
    return replace(record, seconds={**record.seconds, stage: round(perf_counter() - start, 3)})


def _failed(study: Study, record: Record, before: Record | None, error: Exception) -> Outcome:
    """A failed case; what an earlier run wrote of it stays known, so that a file changed since is kept."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return Outcome(study, _failure(record, before, reason), error=_without_voxels(error))


def _failure(record: Record, before: Record | None, reason: str | None) -> Record:
    return replace(record, error=reason, outputs=before.outputs if before else {})


def _without_voxels(error: Exception) -> Exception:
    """The error, the frames of its traceback and its causes' emptied: they would hold the case's arrays."""
    link: BaseException | None = error
    while link is not None:
        clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__
    return error
