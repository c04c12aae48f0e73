"""What a training leaves to look at: `history.csv`, `learning_curve.png`, `sample.png` in the bundle's logs."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite, nan
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import Evaluator

from monai_unetfamily.io import Labels, atomic_file, hex_color
from monai_unetfamily.reporting import save_overlay

_COLUMNS = ("epoch", "seconds", "loss", "rate", "dice")  # then one a class
_MOST_NAMED = 12  # classes in a legend


@dataclass(frozen=True)
class Epoch:
    """One line of a training's history.

    Attributes:
        epoch: from 1.
        seconds: since the training's very start, resumed runs included.
        loss: mean of its batches.
        rate: samples a second, validation and checkpoints not counted; nan for an epoch without a step.
        dice: of the validation, the mean of the classes; None without one.
        classes: Dice of each class; empty without a validation.
    """

    epoch: int
    seconds: float
    loss: float
    rate: float = nan
    dice: float | None = None
    classes: Mapping[str, float] = field(default_factory=dict)


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
        self._start = self._epoch_start = monotonic()
        self._losses: list[float] = []
        self._samples = 0
        self._rate = nan
        self._dice: float | None = None
        self._classes: dict[str, float] = {}

    @property
    def seconds(self) -> float:
        """Time spent on this training until now, resumed runs included."""
        return self._before + monotonic() - self._start

    def attach(self, trainer: Engine, evaluator: Engine) -> None:
        """Listen to both engines."""
        trainer.add_event_handler(Events.STARTED, self._begin)
        trainer.add_event_handler(Events.EPOCH_STARTED, self._begin_epoch)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self._iteration)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, self._epoch)
        evaluator.add_event_handler(Events.ITERATION_COMPLETED(once=1), self._sample)
        evaluator.add_event_handler(Events.COMPLETED, self._validated)

    def end_at(self, epoch: int) -> None:
        """Forget the epochs beyond this: a history may run ahead of its checkpoint, never behind."""
        self.epochs = [e for e in self.epochs if e.epoch <= epoch]

    def _begin(self, trainer: Engine) -> None:
        self.end_at(trainer.state.epoch)
        self._before = self.epochs[-1].seconds if self.epochs else 0.0
        self._start = monotonic()

    def _begin_epoch(self) -> None:
        self._epoch_start, self._samples = monotonic(), 0

    def _iteration(self, trainer: Engine) -> None:
        loss, samples = last_step(trainer)
        if not isfinite(loss):
            raise ValueError(f"the loss is {loss}: the last whole epoch stands; try a smaller learning_rate.")
        self._losses.append(loss)
        self._samples += samples
        self._rate = self._samples / (monotonic() - self._epoch_start)
        if trainer.state.iteration % (trainer.state.epoch_length or 1) == 0:
            self._append(trainer)

    def _append(self, trainer: Engine) -> None:
        """An epoch that has had its steps, ahead of its checkpoint: a run that is killed in between lacks no line."""
        loss = sum(self._losses) / len(self._losses)
        self.epochs.append(Epoch(trainer.state.epoch, round(self.seconds, 1), loss, round(self._rate, 2)))
        self._losses = []
        write_history(self.epochs, self.folder / "history.csv")

    def _validated(self, evaluator: Engine) -> None:
        name = evaluator.state.key_metric_name  # type: ignore[attr-defined]
        self._dice = float(evaluator.state.metrics[name])
        details = evaluator.state.metric_details[name]  # type: ignore[attr-defined]
        classes = [each for label, each in sorted(self.names.items()) if label]
        self._classes = dict(zip(classes, details.nanmean(dim=0).tolist(), strict=True))

    def _epoch(self, trainer: Engine) -> None:
        if self._losses:  # fewer steps than an epoch's
            self._append(trainer)
        spent = round(self.seconds, 1)
        self.epochs[-1] = replace(self.epochs[-1], seconds=spent, dice=self._dice, classes=self._classes)
        self._dice, self._classes = None, {}
        self._write()

    def finish(self, trainer: Engine, evaluator: Evaluator) -> bool:
        """Validate the last epoch too, where the interval left it out: its weights stay. Whether that was needed."""
        if not self.epochs or self.epochs[-1].dice is not None:
            return False
        evaluator.run(trainer.state.epoch)
        self.epochs[-1] = replace(self.epochs[-1], dice=self._dice, classes=self._classes)
        self._write()
        return True

    def _write(self) -> None:
        write_history(self.epochs, self.folder / "history.csv")
        draw_curve(self.epochs, self.folder / "learning_curve.png")
        self.log(_describe(self.epochs[-1]))

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


def last_step(trainer: Engine) -> tuple[float, int]:
    """Loss and number of samples of a trainer's last step, whose output is a list of samples, or one batch."""
    output: Any = trainer.state.output
    samples, item = (len(output), output[0]) if isinstance(output, list) else (len(output["image"]), output)
    return float(item["loss"]), samples


def _describe(epoch: Epoch) -> str:
    classes = ", ".join(f"{name} {dice:.3f}" for name, dice in epoch.classes.items())
    watched = "" if epoch.dice is None else f", validation Dice {epoch.dice:.3f} ({classes})"
    return (
        f"epoch {epoch.epoch}: loss {epoch.loss:.3f}{watched}, {epoch.rate:.3g} samples/s, {epoch.seconds / 60:.1f} min"
    )


def read_history(file: Path) -> list[Epoch]:
    """The epochs of a `history.csv`; none where there is no file."""
    if not file.is_file():
        return []
    with file.open(encoding="utf-8", newline="") as lines:
        return [_read_epoch(row) for row in csv.DictReader(lines)]


def _read_epoch(row: Mapping[str, str]) -> Epoch:
    values = {name: float(value) for name, value in row.items() if value}
    dice, classes = values.get("dice"), {name: value for name, value in values.items() if name not in _COLUMNS}
    return Epoch(int(row["epoch"]), values["seconds"], values["loss"], values.get("rate", nan), dice, classes)


def write_history(epochs: Sequence[Epoch], file: Path) -> None:
    """Write the epochs as CSV, one column a class, whole or not at all."""
    classes = list(dict.fromkeys(name for epoch in epochs for name in epoch.classes))
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow([*_COLUMNS, *classes])
    for epoch in epochs:
        table.writerow([*(getattr(epoch, name) for name in _COLUMNS), *(epoch.classes.get(name) for name in classes)])
    with atomic_file(file) as stream:
        stream.write(text.getvalue().encode())


def draw_curve(epochs: Sequence[Epoch], file: Path) -> None:
    """Draw training loss (left axis) and validation Dice, mean and each class (right axis), over minutes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    loss = figure.subplots()
    loss.plot([e.seconds / 60 for e in epochs], [e.loss for e in epochs], color="#0072B2", lw=1)
    loss.set(xlabel="minutes of training", ylabel="training loss", ylim=(0, None))
    loss.yaxis.label.set_color("#0072B2")
    loss.grid(alpha=0.3)
    loss.set_title(f"epoch {epochs[-1].epoch}")
    _draw_dice(loss.twinx(), [epoch for epoch in epochs if epoch.dice is not None])
    with atomic_file(file) as stream:
        figure.savefig(stream, format="png")


def _draw_dice(axes: Any, validated: Sequence[Epoch]) -> None:
    minutes = [epoch.seconds / 60 for epoch in validated]
    names = list(validated[-1].classes) if validated else []
    for label, name in enumerate(names, start=1):
        line = [epoch.classes.get(name, nan) for epoch in validated]
        axes.plot(minutes, line, color=hex_color(label), lw=1, label=name)
    axes.plot(minutes, [epoch.dice for epoch in validated], color="black", marker="o", ms=3, label="mean")
    axes.set(ylabel="validation Dice", ylim=(0, 1))
    if 1 < len(names) <= _MOST_NAMED:
        axes.legend(loc="lower right", fontsize="small")
