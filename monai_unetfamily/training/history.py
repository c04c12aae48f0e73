"""What a training leaves to look at: `history.csv`, `learning_curve.png`, `sample.png` in the bundle's logs."""

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, fields, replace
from math import isfinite
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from ignite.engine import Engine, Events
from matplotlib.figure import Figure

from monai_unetfamily.inference.report import save_overlay
from monai_unetfamily.volumes.files import atomic_file
from monai_unetfamily.volumes.nifti import Labels


@dataclass(frozen=True)
class Epoch:
    """One line of a training's history; `seconds` counts from its very start, resumed runs included."""

    epoch: int
    seconds: float
    loss: float
    dice: float | None = None


class History:
    """An ignite handler that records each epoch of a trainer, and its validation where there was one.

    Args:
        folder: where the files go.
        names: label id -> class, for the sample's legend; without an id 0 each channel is a class of its own.
        log: is given one line an epoch.
        resume: go on from the history that is there; otherwise start anew.
    """

    def __init__(
        self, folder: Path, names: Mapping[int, str], log: Callable[[str], None], *, resume: bool = False
    ) -> None:
        self.folder = folder
        self.names = names
        self.log = log
        self.epochs = read_history(folder / "history.csv") if resume else []
        self._before = self.epochs[-1].seconds if self.epochs else 0.0
        self._start = monotonic()
        self._losses: list[float] = []
        self._dice: float | None = None

    @property
    def seconds(self) -> float:
        """Time spent on this training until now, resumed runs included."""
        return self._before + monotonic() - self._start

    def attach(self, trainer: Engine, evaluator: Engine) -> None:
        """Listen to both engines."""
        trainer.add_event_handler(Events.STARTED, self._begin)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self._iteration)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, self._epoch)
        evaluator.add_event_handler(Events.ITERATION_COMPLETED(once=1), self._sample)
        evaluator.add_event_handler(Events.COMPLETED, self._validated)

    def _begin(self, trainer: Engine) -> None:
        # a history may run ahead of an older checkpoint that somebody put back
        self.epochs = [e for e in self.epochs if e.epoch <= trainer.state.epoch]
        self._before = self.epochs[-1].seconds if self.epochs else 0.0
        self._start = monotonic()

    def _iteration(self, trainer: Engine) -> None:
        loss = trainer.state.output["loss"].item()  # type: ignore[index]
        if not isfinite(loss):
            raise ValueError(f"the loss is {loss}: the last whole epoch stands; try a smaller learning_rate.")
        self._losses.append(loss)

    def _validated(self, evaluator: Engine) -> None:
        self._dice = float(evaluator.state.metrics[evaluator.state.key_metric_name])  # type: ignore[attr-defined]

    def _epoch(self, trainer: Engine) -> None:
        line = Epoch(trainer.state.epoch, round(self.seconds, 1), sum(self._losses) / len(self._losses), self._dice)
        self.epochs.append(line)
        self._losses, self._dice = [], None
        self._write()

    def finish(self, evaluator: Engine) -> None:
        """Validate the last epoch too, where the interval left it out: its weights are those that stay."""
        if self.epochs and self.epochs[-1].dice is None:
            evaluator.run()
            self.epochs[-1] = replace(self.epochs[-1], dice=self._dice)
            self._write()

    def _write(self) -> None:
        write_history(self.epochs, self.folder / "history.csv")
        draw_curve(self.epochs, self.folder / "learning_curve.png")
        line = self.epochs[-1]
        watched = "" if line.dice is None else f", validation Dice {line.dice:.3f}"
        self.log(f"epoch {line.epoch}: loss {line.loss:.3f}{watched}, {line.seconds / 60:.1f} min")

    def _sample(self, evaluator: Engine) -> None:
        case: Any = evaluator.state.output[0]  # type: ignore[index]
        image = case["image"][0].cpu().numpy()
        affine = case["image"].affine.cpu().numpy() if image.ndim == 3 else None  # a picture has none
        labels, reference = (self._labels(case[key]) for key in ("pred", "label"))
        path = self.folder / "sample.png"
        save_overlay(image, labels, affine, path, self.names, reference=reference, title="validation sample")

    def _labels(self, maps: torch.Tensor) -> Labels:
        """(C, *spatial) as label ids (*spatial) where channel 0 is background, else as masks (*spatial, C)."""
        labels = maps.argmax(dim=0) if 0 in self.names else maps.movedim(0, -1).byte()
        return labels.cpu().numpy()


def read_history(file: Path) -> list[Epoch]:
    """The epochs of a `history.csv`; none where there is no file."""
    if not file.is_file():
        return []
    with file.open(newline="") as lines:
        return [
            Epoch(int(r["epoch"]), float(r["seconds"]), float(r["loss"]), float(r["dice"]) if r["dice"] else None)
            for r in csv.DictReader(lines)
        ]


def write_history(epochs: list[Epoch], file: Path) -> None:
    """Write the epochs as CSV, whole or not at all."""
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow([field.name for field in fields(Epoch)])
    table.writerows(astuple(epoch) for epoch in epochs)
    with atomic_file(file) as stream:
        stream.write(text.getvalue().encode())


def draw_curve(epochs: list[Epoch], file: Path) -> None:
    """Draw training loss (left axis) and validation Dice (right axis) over minutes."""
    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    loss = figure.subplots()
    loss.plot([e.seconds / 60 for e in epochs], [e.loss for e in epochs], color="#0072B2", marker=".")
    loss.set(xlabel="minutes of training", ylabel="training loss", ylim=(0, None))
    loss.yaxis.label.set_color("#0072B2")
    validated = [(e.seconds / 60, e.dice) for e in epochs if e.dice is not None]
    dice = loss.twinx()
    dice.plot(*zip(*validated, strict=True), color="#D55E00", marker="o")
    dice.set(ylabel="validation Dice, mean of classes", ylim=(0, 1))
    dice.yaxis.label.set_color("#D55E00")
    loss.grid(alpha=0.3)
    loss.set_title(f"epoch {epochs[-1].epoch}")
    with atomic_file(file) as stream:
        figure.savefig(stream, format="png")
