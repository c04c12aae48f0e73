"""A time budget for a training: the learning rate falls with the clock, and the last epoch ends in time."""

from itertools import pairwise
from pathlib import Path

import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigWorkflow
from torch.optim.lr_scheduler import LRScheduler

from monai_unetfamily.training.history import History

_ENDLESS = 1_000_000  # epochs of a run that time ends


def decay_over(workflow: ConfigWorkflow, history: History, seconds: float) -> None:
    """Let the learning rate fall with time spent, not with epochs, of which nobody knows the number yet."""

    def factor(_: int) -> float:
        return max(0.0, 1 - history.seconds / seconds) ** 0.9

    workflow.parser["max_epochs"] = _ENDLESS
    workflow.parser["lr_scheduler"] = {
        "_target_": "torch.optim.lr_scheduler.LambdaLR",
        "optimizer": "@optimizer",
        "lr_lambda": factor,
    }


def stop_in_time(trainer: Engine, history: History, seconds: float) -> None:
    """End after the epoch behind which another one, as long as the longest, would pass the budget."""

    def stop(engine: Engine) -> None:
        longest = max(b - a for a, b in pairwise([0.0, *(epoch.seconds for epoch in history.epochs)]))
        if history.seconds + longest > seconds:
            engine.terminate()

    trainer.add_event_handler(Events.EPOCH_COMPLETED, stop)


def check_schedule(checkpoint: Path, scheduler: LRScheduler) -> None:
    """Refuse to resume a run with a time budget without one, or the reverse.

    Raises:
        ValueError: says which it was.
    """
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)["lr_scheduler"]
    was = "with" if "lr_lambdas" in saved else "without"
    if saved.keys() != scheduler.state_dict().keys():
        raise ValueError(
            f"{checkpoint}: was trained {was} a time budget, and can only be resumed so: "
            "give --minutes as the first run had it, or leave it out as that did."
        )
