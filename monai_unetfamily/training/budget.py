"""A time budget for a training: the learning rate falls with the clock, and the last epoch ends in time."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from ignite.engine import Engine, Events
from monai.bundle import ConfigWorkflow
from torch.optim.lr_scheduler import LRScheduler

from monai_unetfamily.bundles import read_states
from monai_unetfamily.training.history import Epoch, History

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
        if is_over(history.epochs, history.seconds, seconds):
            engine.terminate()

    trainer.add_event_handler(Events.EPOCH_COMPLETED, stop)


def is_over(epochs: Sequence[Epoch], spent: float, seconds: float) -> bool:
    """Whether of a budget so little is left that another epoch, as long as the longest, would pass it.

    >>> is_over([Epoch(1, 30.0, 0.5), Epoch(2, 55.0, 0.4)], 55.0, 80.0)
    True
    """
    return spent + max(b - a for a, b in pairwise([0.0, *(epoch.seconds for epoch in epochs)])) > seconds


def require_time(history: History, seconds: float) -> None:
    """Refuse to resume a run whose budget is spent.

    Raises:
        ValueError: says how much was spent.
    """
    if history.epochs and history.seconds >= seconds:
        spent = history.epochs[-1].seconds / 60
        raise ValueError(f"this training has spent {spent:.1f} of its {seconds / 60:g} minutes: give more minutes.")


def check_schedule(checkpoint: Path, scheduler: LRScheduler) -> None:
    """Refuse to resume under another schedule: its state would bring the old one back, at a learning rate of 0.

    Raises:
        ValueError: says what it was; or the file is no checkpoint.
    """
    saved, state = read_states(checkpoint).get("lr_scheduler"), scheduler.state_dict()
    if not isinstance(saved, dict):
        raise ValueError(f"{checkpoint}: holds no lr_scheduler: another recipe wrote it; start from its weights.")
    if saved.keys() != state.keys():
        was = "with" if "lr_lambdas" in saved else "without"
        raise ValueError(f"{checkpoint}: was trained {was} a time budget; resume it so, or start from its weights.")
    if saved.get("total_iters") != state.get("total_iters"):
        raise ValueError(
            f"{checkpoint}: was trained for {saved['total_iters']} epochs, now they are {state['total_iters']}; "
            "resume it with the same number, or start from its weights."
        )
