"""Epochs that are repeated exactly: an ignite handler that bundles name in their training configs."""

from ignite.engine import Engine, Events
from ignite.utils import manual_seed
from monai.data.utils import set_rnd
from monai.utils import MAX_SEED
from torch import distributed as dist

_APART = 1_000_003  # a prime, so that seeds of processes and of epochs do not meet


class SeededEpochs:
    """Begin each epoch from random states that follow from the seed, the epoch and the process alone.

    A training that was killed and is resumed thus goes on exactly as it would have gone on, whatever draws random
    numbers: the order of cases, augmentation in this process or in loaders' workers (they are seeded from it), dropout.

    Args:
        seed: of the training; each process of a group draws its own augmentation from it.

    Raises:
        ValueError: a negative seed.
    """

    def __init__(self, seed: int) -> None:
        if seed < 0:
            raise ValueError(f"seed is {seed}; 0 or more is allowed.")
        self.seed = seed

    def attach(self, engine: Engine) -> None:
        """Seed before each epoch of `engine`, a MONAI trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seed now, for the epoch that begins."""
        rank = dist.get_rank() if dist.is_initialized() else 0
        seed = (self.seed + _APART * (engine.state.epoch + _APART * rank)) % MAX_SEED
        manual_seed(seed)
        set_rnd(engine.data_loader.dataset, seed)  # type: ignore[attr-defined]
