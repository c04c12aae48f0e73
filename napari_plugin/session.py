"""What runs in a worker's thread: a bundle is opened, an image segmented. No Qt; torch is loaded when it is called."""

import os
import sys
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, get_native_id
from time import perf_counter
from typing import TYPE_CHECKING

from monai_unetfamily.volumes.studies import Image

if TYPE_CHECKING:
    from monai_unetfamily.bundles.bundle import Bundle
    from monai_unetfamily.bundles.trust import Finding
    from monai_unetfamily.inference.choices import Choices
    from monai_unetfamily.inference.segment import Progress
    from monai_unetfamily.inference.settings import Settings
    from monai_unetfamily.volumes.nifti import Labels

# What a person can do something about. torch's errors are RuntimeErrors, which napari's workers take for return values.
FAILURES = (ValueError, OSError, MemoryError, RuntimeError, ImportError)

_NICE = 10  # behind the window's thread, of the 40 steps that there are


@dataclass(frozen=True)
class Opened:
    """A bundle on a device, what may be chosen of it, and the devices that this machine has.

    `trusted`: whether a person allowed code of its own.
    """

    bundle: "Bundle"
    choices: "Choices"
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
        from monai_unetfamily.bundles.bundle import open_bundle
        from monai_unetfamily.bundles.trust import review
        from monai_unetfamily.inference.choices import choices
        from monai_unetfamily.inference.device import choose_device, list_devices

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
    from monai_unetfamily.inference.predictor import prepare_image
    from monai_unetfamily.inference.presence import watch_guides
    from monai_unetfamily.inference.segment import segment
    from monai_unetfamily.inference.settings import adapt

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
