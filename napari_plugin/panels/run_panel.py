"""Run and Cancel, why a run cannot be started, and how far it is."""

from time import perf_counter

from napari.utils import progress
from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_plugin.qt import Line, plain

_TICK = 100  # ms between two looks at how far the run is


class RunPanel(QWidget):
    """Two buttons and a line; a bar with the time left stands in napari's activity dock.

    `run` and `cancel` are emitted by the buttons.
    """

    run = Signal()
    cancel = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.start = QPushButton("Run", objectName="run")
        self.stop = QPushButton("Cancel", objectName="cancel", toolTip="Stop after the present window")
        self.line = Line("status")
        self.bar: progress | None = None
        self._began, self._done, self._total = 0.0, 0, 0
        self._clock = QTimer(self)
        self._clock.timeout.connect(self._show)
        buttons = QHBoxLayout()
        buttons.addWidget(self.start)
        buttons.addWidget(self.stop)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(buttons)
        layout.addWidget(self.line)
        self.start.clicked.connect(self.run)
        self.stop.clicked.connect(self.cancel)
        self.idle("")

    def idle(self, reason: str) -> None:
        """Nothing runs; `reason` is why Run is disabled, empty where it is not."""
        self._close_bar()
        self.start.setEnabled(not reason)
        self.start.setToolTip(plain(reason) or "Segment the image")
        self.stop.setEnabled(False)
        self.say(reason)

    def say(self, text: str) -> None:
        """Show a line."""
        self.line.setText(text)
        self.line.setVisible(bool(text))

    def running(self, what: str) -> None:
        """A run has begun."""
        self.start.setEnabled(False)
        self.start.setToolTip("A run is on its way")
        self.stop.setEnabled(True)
        self._began = perf_counter()
        self._close_bar()
        self._done = self._total = 0
        self.bar = progress(total=0, desc=plain(what))
        self._clock.start(_TICK)
        self.say(f"{what}: preparing the image…")

    def cancelling(self) -> None:
        """Cancel was pressed, and the present window is still on its way."""
        self.stop.setEnabled(False)
        self.say("Cancelling: the present window is finished first…")

    def tell(self, done: int, total: int) -> None:
        """How many windows are done; it is shown with the next tick of the clock.

        At once it could not be: napari's bar handles all waiting events while it is changed, the next step among them.
        """
        self._done, self._total = done, total

    def _show(self) -> None:
        if self.bar is None or not self._total or not self.stop.isEnabled():
            return
        self.say(f"{self._done} of {self._total} windows{self._left(self._done, self._total)}")
        if self.bar.total != self._total:
            self.bar.reset(self._total)
        self.bar.update(self._done - self.bar.n)

    def _left(self, done: int, total: int) -> str:
        seconds = (perf_counter() - self._began) / max(done, 1) * (total - done)
        return f", about {duration(seconds)} left" if done and total > done else ""

    def _close_bar(self) -> None:
        self._clock.stop()
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def duration(seconds: float) -> str:
    """A time in words that do not jump: seconds below a minute and a half, minutes beyond.

    >>> duration(42.3), duration(400)
    ('42 s', '7 min')
    """
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
