"""Predict a cohort: read, compute and write overlap, and finished cases are skipped."""

import errno
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, Generic, NamedTuple, TypeVar

import torch

from monai_unetfamily.bundles import Bundle, trained_only_on_phantoms
from monai_unetfamily.cohort.locks import CaseLocks, require_directory
from monai_unetfamily.cohort.outputs import Outputs, outputs_of
from monai_unetfamily.cohort.records import (
    FAILURES,
    UNFINISHED,
    CaseResult,
    Record,
    failed,
    failure,
    hash_study,
    is_finished,
    read_record,
    record_file,
    timed,
    write_record,
)
from monai_unetfamily.cohort.summary import machine_of, write_cohort
from monai_unetfamily.io import Image, Labels, Study, format_box, hash_files, make_directory
from monai_unetfamily.prediction import (
    DEFAULTS,
    Case,
    Progress,
    Request,
    Settings,
    adapt_all,
    check_ensemble,
    load_case,
    request_of,
    segment,
    watch_guides,
)

# Three stages of work on one item after another, overlapping: while one is computed, the next is read.


T = TypeVar("T")
Read = TypeVar("Read")
Done = TypeVar("Done")
Written = TypeVar("Written")


def overlapped(
    items: Iterable[T],
    read: Callable[[T], Read],
    compute: Callable[[Read], Done],
    write: Callable[[Done], Written],
    *,
    side_threads: int | None = None,
) -> Iterator[Written]:
    """Yield `write(compute(read(item)))` of each item, in order.

    `compute` runs in the caller's thread, `read` and `write` in one thread each: at any time one item is read, one
    computed and one written, and no more are held. What a stage raises is raised here, and nothing further begins.
    Where the caller stops, or closes the generator, the stages that run are finished first.

    Args:
        items: are taken one at a time, as the first stage is free.
        read, compute, write: the stages.
        side_threads: of torch, for `read` and `write` each; None leaves them as many as the caller's. On a machine
            without a GPU, 1 leaves the cores to `compute`.

    >>> list(overlapped([1, 2, 3], lambda x: x + 1, lambda x: x * 10, str))
    ['20', '30', '40']
    """
    with ExitStack() as stack:
        reader, writer = (stack.enter_context(_one_thread(side_threads)) for _ in range(2))
        if side_threads is not None:
            torch.set_num_threads(torch.get_num_threads())  # a part of what a thread sets for itself holds for all
        last: Future[Written] | None = None
        for coming in _ahead(items, read, reader):
            done = compute(coming.result())
            if last is not None:
                yield last.result()
            last = writer.submit(write, done)
            del done, coming  # or a case more would be held
        if last is not None:
            yield last.result()


class Stages(Generic[T, Read, Done, Written]):
    """The three stages of `overlapped` for items that come from outside, one a call, from several threads.

    Each stage has its thread, which processes one item at a time: of three callers one is read, one computed
    and one written.

    Args:
        read, compute, write: the stages.
        threads: of torch, for `compute`.
        side_threads: for the two others; None leaves them as many.

    >>> stages = Stages(lambda x: x + 1, lambda x: x * 10, str, threads=1)
    >>> stages.do(1)
    '20'
    """

    def __init__(
        self,
        read: Callable[[T], Read],
        compute: Callable[[Read], Done],
        write: Callable[[Done], Written],
        *,
        threads: int,
        side_threads: int | None = None,
    ) -> None:
        self.read, self.compute, self.write = read, compute, write
        self._reader, self._writer = _one_thread(side_threads), _one_thread(side_threads)
        self._computer = _one_thread(threads)  # the last that sets them: a part of them holds for all

    def do(self, item: T) -> Written:
        """`write(compute(read(item)))`, each in its turn."""
        done = self._computer.submit(self.compute, self._reader.submit(self.read, item).result()).result()
        return self._writer.submit(self.write, done).result()


def _one_thread(threads: int | None) -> ThreadPoolExecutor:
    executor = ThreadPoolExecutor(1)
    if threads is not None:
        executor.submit(_limit_this_thread, threads).result()
    return executor


def _limit_this_thread(threads: int) -> None:
    torch.set_num_threads(threads)
    torch.get_num_threads()  # torch's first look in a thread takes over what was set last anywhere: let it be this


def _ahead(items: Iterable[T], read: Callable[[T], Read], reader: ThreadPoolExecutor) -> Iterator[Future[Read]]:
    """Each item's reading, begun before it is asked for."""
    before: Future[Read] | None = None
    for item in items:
        coming = reader.submit(read, item)
        if before is not None:
            yield before
        before = coming
    if before is not None:
        yield before


# A cohort: thousands of cases through one bundle, or several, none lost.
#
# The next case is read and preprocessed and the last one written while the network has the present one. Whatever a
# case does, the others are done; what is finished is not done again (`records`); a run that is killed at any moment
# goes on by the same call, to the same results.

_LOGGER = logging.getLogger(__name__)
_FOLDER_UNUSABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOENT, errno.EACCES, errno.EPERM, errno.EIO)


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
) -> Iterator[CaseResult]:
    """Segment studies into a folder, and yield what became of each, in order.

    Each label map is `<name>.nii.gz`, or `<name>.png` of a picture (`outputs` says what else there is); its record
    `<name>.json` lies beside it. A case that fails has a record that says why. In the end, or where the caller stops,
    the tables and the page of `summary.write_cohort` are written.

    Args:
        bundles: one, or several whose class probabilities are averaged.
        studies: as `data.find_studies` finds them; names must differ.
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
    run = begin_run(bundles, studies, output, settings, overwrite=overwrite, log=log, progress=progress)
    with run.in_folder(machine_of(bundles[0].device)):
        yield from overlapped(studies, run.read, run.compute, run.write, side_threads=run.side_threads)


def begin_run(
    bundles: Sequence[Bundle],
    studies: Sequence[Study],
    output: Path,
    settings: Settings,
    *,
    overwrite: bool,
    log: Callable[[str], None],
    progress: Callable[[Study, Progress], None] = lambda study, step: None,
) -> "Run":
    """The run that `predict_cohort` does, once nothing speaks against it; the arguments are its own.

    Raises:
        FileExistsError, ValueError: what it refuses before anything is done.
    """
    check_ensemble(bundles, log)
    for bundle in bundles:
        if trained_only_on_phantoms(bundle.root):
            log(f"{bundle.root.name} knows phantoms alone: never use what it says of a patient")
    run = run_of(bundles, output, settings, overwrite, CaseLocks(output, log), progress)
    run.outputs.require_no_conflict(studies, run.request, overwrite)
    return run


def run_of(
    bundles: Sequence[Bundle],
    output: Path,
    settings: Settings,
    overwrite: bool,
    locks: CaseLocks,
    progress: Callable[[Study, Progress], None] = lambda study, step: None,
) -> "Run":
    """A run of bundles as they are opened.

    Raises:
        ValueError: settings that they cannot meet.
    """
    request = request_of(bundles, settings)
    adapted, outputs = adapt_all(bundles, settings), outputs_of(bundles, output, settings, request)
    return Run(adapted, output, settings, request, overwrite, locks, outputs, progress)


@dataclass(frozen=True)
class Run:
    """One run over cases: what becomes of each goes through `read`, `compute` and `write`, in this order.

    Attributes:
        bundles: as the settings adapt them.
        output: folder.
        settings: what is asked for.
        request: the same, by hashes.
        overwrite: whether what is finished is done again.
        locks: on the cases, acquired one at a time.
        outputs: the files of its folder.
        progress: is told how far the network is with a case.
    """

    bundles: Sequence[Bundle]
    output: Path
    settings: Settings
    request: Request
    overwrite: bool
    locks: CaseLocks
    outputs: Outputs
    progress: Callable[[Study, Progress], None] = lambda study, step: None

    @property
    def side_threads(self) -> int | None:
        """Of torch, for reading and writing: without a GPU the network keeps its cores."""
        return 1 if self.bundles[0].device.type == "cpu" else None

    @contextmanager
    def in_folder(self, machine: Mapping[str, Any]) -> Iterator[None]:
        """The block that does the cases, in a folder that is there; tables and page, which name the machine, follow."""
        make_directory(self.output)
        try:
            with self.locks:
                yield
        finally:
            if self.output.is_dir():
                write_cohort(self.output, self.request, self.bundles[0].names, machine)

    def read(self, study: Study) -> _Loaded | CaseResult:
        """Hash and read a study and run the preprocessing, unless it is finished."""
        before = read_record(record_file(self.output, study.name))
        start, record = perf_counter(), Record(study.name, self.request, tuple(map(str, study.files)))
        try:
            record = replace(record, input_hash=hash_study(study), notes=study.notes)
            if before and not self.overwrite and is_finished(before, record, self.output):
                return CaseResult(study, before, self.outputs.target(study), skipped=True)
            with torch.inference_mode():
                reading = {name: getattr(self.settings, name) for name in ("nan", "gaps", "max_voxels")}
                image, case = load_case(self.bundles[0], study, **reading)
            if self.outputs.segmentations:
                self.outputs.segmentations.check(study, image)
        except FAILURES as error:
            return failed(study, record, before, error)
        record = replace(record, notes=(*record.notes, *image.notes, *case.notes))
        return _Loaded(study, timed(record, "read", start), before, image, case)

    def compute(self, work: _Loaded | CaseResult) -> _Segmented | CaseResult:
        """Run the network, and bring its scores back to the source's grid, in this case's turn."""
        if isinstance(work, CaseResult) and work.skipped:
            return work
        work = self._in_turn(work)
        if isinstance(work, CaseResult):
            return work
        start, (study, record, before, image, case) = perf_counter(), work
        try:
            if self.settings.save_scores:
                self._claim(study, record, before)
            with watch_guides([bundle.network for bundle in self.bundles]) as presence:
                labels, notes = self._segment(study, image, case)
        except FAILURES as error:
            return failed(study, record, before, error)
        record = replace(record, notes=(*record.notes, *notes))
        return _Segmented(study, timed(record, "network", start), before, image, labels, presence.probabilities())

    def _in_turn(self, work: _Loaded | CaseResult) -> _Loaded | CaseResult:
        """The case, once no other run has it; as another has finished it meanwhile, perhaps."""
        study = work.study
        self.locks.acquire(study.name)
        self.outputs.require_no_conflict([study], self.request, self.overwrite)
        before = read_record(record_file(self.output, study.name))
        if before and not self.overwrite and is_finished(before, work.record, self.output):
            return CaseResult(study, before, self.outputs.target(study), skipped=True)
        if isinstance(work, CaseResult):
            return replace(work, record=failure(work.record, before, work.record.error))
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

    def fail(self, study: Study, error: Exception) -> CaseResult:
        """Give up a case, in its turn: its record says why."""
        record = Record(study.name, self.request, tuple(map(str, study.files)), hash_study(study), notes=study.notes)
        return self.write(self.compute(failed(study, record, None, error)))

    def write(self, work: _Segmented | CaseResult) -> CaseResult:
        """Write all that a case gives, its record last; of one that failed the record alone. Its turn is over then."""
        try:
            return self._write_once(work)
        finally:
            self.locks.release(work.study.name)

    def _write_once(self, work: _Segmented | CaseResult) -> CaseResult:
        require_directory(self.output)
        if isinstance(work, CaseResult):
            if not work.skipped:
                write_record(work.record, self.output)
            return work
        try:
            return self._write(work)
        except FAILURES as error:
            if isinstance(error, OSError) and error.errno in _FOLDER_UNUSABLE:
                raise
            case_result = failed(work.study, work.record, read_record(record_file(self.output, work.study.name)), error)
        write_record(case_result.record, self.output)
        return case_result

    def _write(self, work: _Segmented) -> CaseResult:
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
        record = timed(record, "write", start)
        write_record(record, self.output)
        return CaseResult(study, record, self.outputs.target(study))
