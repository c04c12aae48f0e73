"""A run on its way: the network in a worker's thread, the layers in this one."""

import gc
from collections.abc import Iterator
from functools import partial
from threading import Event
from typing import TYPE_CHECKING

from napari.qt.threading import create_worker
from qtpy.QtCore import QObject, QTimer, Signal
from qtpy.QtWidgets import QWidget

from napari_plugin.partial_labels import PartialLabels
from napari_plugin.session import Ask, Failed, Result, run, unforeseen

if TYPE_CHECKING:
    from monai_unetfamily.inference.segment import Progress

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

    def _end(self, outcome: Result | Failed | None = None) -> None:
        shown, self._shown = self._shown, None
        if shown is None:
            return
        if isinstance(outcome, Result) and not self._stop.is_set():
            gc.unfreeze()
            self.finished.emit(outcome, shown.finish(outcome.labels))
            return
        shown.discard()  # of what came since the freeze: napari collects garbage with each layer that it removes
        gc.unfreeze()
        if isinstance(outcome, Failed):
            self.failed.emit(outcome.reason)
        else:
            self.cancelled.emit()
