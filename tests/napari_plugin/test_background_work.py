"""Of work that is asked for again and again, the last result alone arrives, and no two pieces run at a time."""

from threading import Event, Lock

from pytestqt.qtbot import QtBot
from qtpy.QtCore import QObject

from napari_plugin.qt import LatestTask

PATIENCE = 240_000  # milliseconds that end a test that hangs


class Bench:
    """Work that waits at a gate, numbered as it is prepared."""

    def __init__(self, parent: QObject) -> None:
        self.prepared, self.done, self.alone, self.gate = 0, list[int](), Lock(), Event()
        self.latest = LatestTask(self.prepare, self.done.append, parent)

    def prepare(self):  # type: ignore[no-untyped-def]
        self.prepared += 1
        number = self.prepared

        def work() -> int:
            if not self.alone.acquire(blocking=False):
                raise RuntimeError("two at a time")
            self.gate.wait()
            self.alone.release()
            return number

        return work


def test_the_last_result_alone_arrives(qtbot: QtBot) -> None:
    parent = QObject()
    bench = Bench(parent)
    bench.latest.ask(0)
    qtbot.waitUntil(lambda: bench.prepared == 1, timeout=PATIENCE)
    for _ in range(3):  # while the first runs
        bench.latest.ask(0)
        qtbot.wait(20)
    bench.gate.set()
    qtbot.waitUntil(lambda: not bench.latest.pending, timeout=PATIENCE)
    assert (bench.prepared, bench.done) == (2, [2])


def test_asked_for_again_by_who_takes_the_result(qtbot: QtBot) -> None:
    parent = QObject()
    bench = Bench(parent)
    bench.latest._done = lambda number: (bench.done.append(number), number < 4 and bench.latest.ask(0))
    bench.gate.set()
    bench.latest.ask(0)
    qtbot.waitUntil(lambda: bench.done == [1, 2, 3, 4], timeout=PATIENCE)
    assert not bench.latest.pending


def test_cancelled_nothing_arrives_and_the_next_does(qtbot: QtBot) -> None:
    parent = QObject()
    bench = Bench(parent)
    bench.latest.ask(0)
    qtbot.waitUntil(lambda: bench.prepared == 1, timeout=PATIENCE)
    bench.latest.cancel()
    assert not bench.latest.pending
    bench.latest.ask(0)
    bench.gate.set()
    qtbot.waitUntil(lambda: bool(bench.done), timeout=PATIENCE)
    qtbot.wait(100)
    assert bench.done == [2]
