"""Open bundles and run them in a worker thread."""

import gc
import os
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Event, get_native_id
from time import perf_counter
from typing import TYPE_CHECKING

from napari.qt.threading import create_worker
from qtpy.QtCore import QObject, QTimer, Signal
from qtpy.QtWidgets import QWidget

from monai_unetfamily.io import Image
from napari_plugin.layers import PartialLabels

if TYPE_CHECKING:
    from monai_unetfamily.bundles import Bundle
    from monai_unetfamily.bundles.trust import Finding
    from monai_unetfamily.io import Labels
    from monai_unetfamily.prediction import BundleOptions, Progress, Settings

# What runs in a worker's thread: a bundle is opened, an image segmented. No Qt; torch is loaded when it is called.


# What a person can do something about. torch's errors are RuntimeErrors, which napari's workers take for return values.
FAILURES = (ValueError, OSError, MemoryError, RuntimeError, ImportError)

_NICE = 10  # behind the window's thread, of the 40 steps that there are


@dataclass(frozen=True)
class Opened:
    """A bundle on a device, what may be chosen of it, and the devices that this machine has.

    `trusted`: whether a person allowed code of its own.
    """

    bundle: "Bundle"
    choices: "BundleOptions"
    devices: tuple[str, ...]
    trusted: bool


@dataclass(frozen=True)
class Refused:
    """A bundle that nobody trusts yet: what it would run."""

    findings: "tuple[Finding, ...]"


@dataclass(frozen=True)
class Failed:
    """Why something could not be done, in one line that says what to do."""

    reason: str


@dataclass(frozen=True)
class Ask:
    """What is asked for: `read` gives the image, in the worker's thread; `name` stands in messages."""

    bundle: "Bundle"
    read: Callable[[], Image]
    name: str
    settings: "Settings"


@dataclass(frozen=True)
class Result:
    """What a run gave.

    Attributes:
        labels: in the order of the image's axes, ids (*spatial), or masks (*spatial, classes) where they may overlap.
        presence: class id -> probability, where the network says so.
        notes: one line for each thing that was done otherwise than usual.
        seconds: of the whole run.
    """

    labels: "Labels"
    presence: dict[int, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


def open_chosen(root: Path, device: str, trusted: "tuple[Finding, ...]") -> Opened | Refused | Failed:
    """Open a bundle for prediction; code of its own is told, not run, unless it is what is trusted."""
    try:  # torch may be what cannot be loaded
        from monai_unetfamily.bundles import open_bundle
        from monai_unetfamily.bundles.trust import review
        from monai_unetfamily.prediction import choices, choose_device, list_devices

        trust = bool(trusted) and review(root) == trusted
        bundle = open_bundle(root, choose_device(device), trust=trust)
        return Opened(bundle, choices(bundle), list_devices(), trust)
    except FAILURES as error:
        findings = getattr(error, "findings", ())  # an UntrustedBundleError has them
        return Refused(findings) if findings else Failed(one_line(error))


def run(ask: Ask, stop: Event) -> Generator["Progress", None, Result | Failed | None]:
    """Segment step by step, as the command line does, and return what came of it; None where `stop` was set.

    `stop` is looked at between two batches of windows, and everything is tidied up in the thread that runs this.
    """
    start = perf_counter()
    _stand_back()
    try:
        with closing(_steps(ask)) as steps:
            while not stop.is_set():
                try:
                    yield next(steps)
                except StopIteration as done:
                    labels, presence, notes = done.value
                    return Result(labels, presence, notes, perf_counter() - start)
    except FAILURES as error:
        return Failed(one_line(error))
    return None


def _stand_back() -> None:
    """Let the window have the processor first: this thread, and those that torch starts from it, take what is left."""
    if sys.platform == "linux":  # elsewhere a whole process has a priority, not a thread
        ours = os.getpriority(os.PRIO_PROCESS, os.getpid())
        os.setpriority(os.PRIO_PROCESS, get_native_id(), min(ours + _NICE, 19))


def _steps(ask: Ask) -> Generator["Progress", None, tuple["Labels", dict[int, float], tuple[str, ...]]]:
    from monai_unetfamily.prediction import adapt, prepare_image, segment, watch_guides

    bundle, notes = adapt(ask.bundle, ask.settings), list[str]()
    image = ask.read()
    case = prepare_image(bundle, image, Path(ask.name))
    with watch_guides([bundle.network]) as presence:
        for step in segment(bundle, case, box=ask.settings.box, log=notes.append):
            yield step
    return step.labels, presence.probabilities(), (*image.notes, *case.notes, *notes)


def unforeseen(error: BaseException) -> Failed:
    """What is said of an error that nobody thought of: a defect, of a bundle's code or of ours.

    >>> unforeseen(KeyError("label")).reason
    "KeyError: 'label': a defect; try another bundle or image, and report it"
    """
    return Failed(f"{type(error).__name__}: {one_line(error)}: a defect; try another bundle or image, and report it")


def one_line(error: BaseException) -> str:
    """What an error says, without line breaks; its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


# A run on its way: the network in a worker's thread, the layers in this one.

_TURN = 5  # ms, in which the window is drawn


class Runner(QObject):
    """Runs one thing at a time.

    `stepped` is emitted with windows done and in all; in the end one of `finished`, with the result and its layers,
    `failed`, with a line that says what to do, and `cancelled`. After the latter two nothing of the run is left.
    """

    stepped = Signal(int, int)
    finished = Signal(object, list)
    failed = Signal(str)
    cancelled = Signal()

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self._widget = parent
        self._stop = Event()
        self._shown: PartialLabels | None = None
        self._turn = QTimer(self, singleShot=True, interval=_TURN)

    @property
    def busy(self) -> bool:
        """Whether a run is on its way."""
        return self._shown is not None

    def start(self, ask: Ask, shown: PartialLabels) -> None:
        """Begin: layers are laid, which takes some turns of the event loop; then labels are shown as they come."""
        self._stop, self._shown = Event(), shown
        gc.freeze()  # else what is loaded, torch above all, is searched for garbage while the window waits: 0.2 s
        self._turn.timeout.connect(partial(self._lay, shown.lay(), ask, self._widget.window()))
        self._turn.start()

    def _lay(self, steps: Iterator[None], ask: Ask, window: QWidget) -> None:
        """Take a step, or let it be drawn; after the last one begin."""
        drawn = window.updatesEnabled()
        try:
            goes_on = not drawn or next(steps, "over") is None
        except ValueError as error:  # an image that lies nowhere
            self._turn.timeout.disconnect()
            self._end(Failed(str(error)))
            return
        if goes_on:
            window.setUpdatesEnabled(not drawn)  # what a step changed is drawn in a turn of its own
            self._turn.start()
            return
        self._turn.timeout.disconnect()
        self._begin(ask)

    def _begin(self, ask: Ask) -> None:
        worker = create_worker(run, ask, self._stop)
        worker.yielded.connect(self._step)
        worker.returned.connect(self._end)
        worker.errored.connect(self._break)  # napari shows the traceback
        worker.aborted.connect(self._end)  # by napari, which stops its workers as it closes
        worker.start()

    def cancel(self) -> None:
        """Stop after the present window."""
        self._stop.set()

    def _step(self, step: "Progress") -> None:
        if self._shown is not None and not self._stop.is_set():
            self._shown.show(step.labels)
            self.stepped.emit(step.done, step.total)

    def _break(self, error: BaseException) -> None:
        self._end(unforeseen(error))

    def _end(self, case_result: Result | Failed | None = None) -> None:
        shown, self._shown = self._shown, None
        if shown is None:
            return
        if isinstance(case_result, Result) and not self._stop.is_set():
            gc.unfreeze()
            self.finished.emit(case_result, shown.finish(case_result.labels))
            return
        shown.discard()  # of what came since the freeze: napari collects garbage with each layer that it removes
        gc.unfreeze()
        if isinstance(case_result, Failed):
            self.failed.emit(case_result.reason)
        else:
            self.cancelled.emit()
