"""Checkpoints that a crash cannot corrupt: an ignite handler that bundles name in their training configs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.config import PathLike
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from monai_unetfamily.bundles.metadata import WEIGHTS
from monai_unetfamily.volumes.files import atomic_file

CHECKPOINT = "checkpoint.pt"  # everything that resuming needs


class AtomicCheckpoint:
    """Write `checkpoint.pt` and `model.pt` after every epoch, each only whole.

    A file is written under a temporary name in the same folder, flushed to disk, then renamed over the old one:
    whenever the process dies, the last good file stands. (MONAI's CheckpointSaver writes in place; ignite's
    Checkpoint with a fixed name removes the old file before it writes the new one.) Attach it after the learning
    rate's handler, so that the state saved is the one that the next epoch starts from.

    Args:
        folder: where the two files go; made when missing.
        objects: what resuming needs, by name; must hold "network". The engine's own state goes with it as "trainer".

    Raises:
        ValueError: where "network" is missing.
    """

    def __init__(self, folder: PathLike, objects: Mapping[str, Any]) -> None:
        if not isinstance(objects.get("network"), nn.Module):
            raise ValueError(f"objects are {sorted(objects)}; 'network', a torch module, must be among them.")
        self.folder = Path(folder)
        self.objects = dict(objects)

    def attach(self, engine: Engine) -> None:
        """Save after each epoch of `engine`, on the first process alone."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write both files now."""
        if torch.distributed.is_initialized() and torch.distributed.get_rank() > 0:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        states = {name: _bare(thing).state_dict() for name, thing in (self.objects | {"trainer": engine}).items()}
        save_whole(states, self.folder / CHECKPOINT)
        save_whole(states["network"], self.folder / WEIGHTS)


def save_whole(thing: Any, path: Path) -> None:
    """`torch.save` that leaves either the old file or the new one, never a part."""
    with atomic_file(path) as stream:
        torch.save(thing, stream)


def _bare(thing: Any) -> Any:
    return thing.module if isinstance(thing, DistributedDataParallel) else thing
