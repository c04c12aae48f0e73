"""Background tasks of which only the last result counts; a layer's removal that does not end the process."""

import sys
from collections.abc import Callable
from typing import Generic, TypeVar

from napari.qt.threading import FunctionWorker, create_worker
from qtpy.QtCore import QObject, QTimer
from vispy.gloo.glir import GlirProgram

# Work in another thread that is asked for again and again, and of which the last result alone counts.


T = TypeVar("T")


class LatestTask(QObject, Generic[T]):
    """Runs a piece of work when it has not been asked for for a while; never two at a time."""

    def __init__(self, prepare: Callable[[], Callable[[], T]], done: Callable[[T], None], parent: QObject) -> None:
        """Take the two ends, which are called in the main thread.

        Args:
            prepare: gives the work, which runs in the other thread.
            done: takes its result, unless it was asked for again, or cancelled, in the meantime.
            parent: owns this.
        """
        super().__init__(parent)
        self._prepare, self._done = prepare, done
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._start)
        self._worker: FunctionWorker[T] | None = None
        self._asked = self._outdated = False  # outdated: what runs is not waited for any more

    @property
    def pending(self) -> bool:
        """Whether a result is still to come."""
        return self._asked or (self._worker is not None and not self._outdated)

    def ask(self, delay: int) -> None:
        """Let it run `delay` ms after the last call."""
        self._asked = True
        self._timer.start(delay)

    def cancel(self) -> None:
        """Forget what was asked; what runs ends without a result."""
        self._asked, self._outdated = False, True
        self._timer.stop()

    def _start(self) -> None:
        if self._worker is not None:
            return  # `_end` comes back here
        self._asked = self._outdated = False
        self._worker = create_worker(self._prepare())
        self._worker.returned.connect(self._take)
        self._worker.finished.connect(self._end)
        self._worker.start()

    def _take(self, result: T) -> None:
        if not (self._asked or self._outdated):
            self._outdated = True  # it has been handed over; the worker itself ends a moment later
            self._done(result)

    def _end(self) -> None:
        self._worker = None
        if self._asked and not self._timer.isActive():
            self._start()


# A layer that is removed must not end the process.
#
# Mesa's software rasterizers (22.3, as of machines without a GPU and of remote desktops) read freed memory once a GL
# program was deleted that had drawn before: after a layer of vispy's is removed, the next drawing of another ends the
# process, with every correction that was not saved. The widget adds and removes layers, so it sees to it: programs are
# kept, some kB for each layer that is removed, until the window is closed.


def keep_programs() -> None:
    """Let vispy delete no GL program while its window is open, where Mesa may draw; a second call changes nothing."""
    if sys.platform == "linux":
        GlirProgram.delete = _keep


def _keep(program: GlirProgram) -> None:
    """GL frees it with its context."""
