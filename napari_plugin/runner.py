"""A run on its way: the network in a worker's thread, the layers in this one."""

from threading import Event
from typing import TYPE_CHECKING

from napari.qt.threading import create_worker
from qtpy.QtCore import QObject, Signal

from napari_plugin.partial_labels import PartialLabels
from napari_plugin.session import Ask, Failed, Result, run

if TYPE_CHECKING:
    from monai_unetfamily.inference.segment import Progress


class Runner(QObject):
    """Runs one thing at a time.

    `stepped` is emitted with windows done and in all; in the end one of `finished`, with the result and its layers,
    `failed`, with a line that says what to do, and `cancelled`. After the latter two nothing of the run is left.
    """

    stepped = Signal(int, int)
    finished = Signal(object, list)
    failed = Signal(str)
    cancelled = Signal()

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._stop = Event()
        self._shown: PartialLabels | None = None

    @property
    def busy(self) -> bool:
        """Whether a run is on its way."""
        return self._shown is not None

    def start(self, ask: Ask, shown: PartialLabels) -> None:
        """Begin; labels are shown as they come."""
        self._stop, self._shown = Event(), shown
        worker = create_worker(run, ask, self._stop)
        worker.yielded.connect(self._step)
        worker.returned.connect(self._end)
        worker.aborted.connect(self._end)  # by napari, which stops its workers as it closes
        worker.start()

    def cancel(self) -> None:
        """Stop after the present window."""
        self._stop.set()

    def _step(self, step: "Progress") -> None:
        if self._shown is not None and not self._stop.is_set():
            self._shown.show(step.labels)
            self.stepped.emit(step.done, step.total)

    def _end(self, outcome: Result | Failed | None = None) -> None:
        shown, self._shown = self._shown, None
        if shown is None:
            return
        if isinstance(outcome, Result):
            self.finished.emit(outcome, shown.finish(outcome.labels))
            return
        shown.discard()
        if isinstance(outcome, Failed):
            self.failed.emit(outcome.reason)
        else:
            self.cancelled.emit()
