"""Checkpoints that a crash cannot corrupt: ignite handlers that bundles name in their training configs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.config import PathLike
from monai.engines import Evaluator
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from monai_unetfamily.bundles import WEIGHTS, read_states
from monai_unetfamily.io import atomic_file, make_directory, remove_parts

CHECKPOINT = "checkpoint.pt"  # everything that resuming needs
BEST = "model_best.pt"


class AtomicCheckpoint:
    """Write `checkpoint.pt` and `model.pt` after every epoch, each only whole.

    A file is written under a temporary name in the same folder, flushed to disk, then renamed over the old one:
    whenever the process dies, the last good file stands. (MONAI's CheckpointSaver writes in place; ignite's
    Checkpoint with a fixed name removes the old file before it writes the new one.) Attach it last, so that the
    states saved are those that the next epoch starts from. Random states follow from the epoch (`SeededEpochs`).

    Args:
        folder: where the two files go; made when missing.
        objects: what resuming needs, by name; must hold "network". The engine's own state goes with it as "trainer",
            and that of its gradient scaler as "scaler", where it has one.

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
        if not _is_first():
            return
        states = {name: _bare(thing).state_dict() for name, thing in self._all(engine).items()}
        make_directory(self.folder)
        save_atomically(states, self.folder / CHECKPOINT)
        save_atomically(states["network"], self.folder / WEIGHTS)

    def restore(self, engine: Engine) -> None:
        """Bring every object, and the engine, to the state of `checkpoint.pt`.

        Raises:
            ValueError: a checkpoint that lacks one of them, or of a training that is complete: ignite would begin anew.
        """
        file, most = self.folder / CHECKPOINT, engine.state.max_epochs
        states = read_states(file)
        lacking = sorted(self._all(engine).keys() - states.keys())
        if lacking:
            raise ValueError(f"{file}: holds no {lacking[0]}: another recipe wrote it; start from its weights.")
        for name, thing in self._all(engine).items():
            _bare(thing).load_state_dict(states[name])
        engine.state.max_epochs = most
        if most is not None and engine.state.epoch >= most:
            raise ValueError(f"{file}: this training has had all its {most} epochs; start a new one from its weights.")

    def _all(self, engine: Engine) -> dict[str, Any]:
        scaler = getattr(engine, "scaler", None)
        return self.objects | {"trainer": engine} | ({} if scaler is None else {"scaler": scaler})


class BestWeights:
    """Write `model_best.pt` whenever a validation is the best until then; end the training where none is for long.

    Attach it to the trainer after its ValidationHandler, in every process of a group.

    Args:
        folder: where the file goes; made when missing.
        network: whose weights are written.
        validator: MONAI's evaluator, with a key metric of which more is better.
        patience: validations without a better one that end the training; None: it never ends early.

    Raises:
        ValueError: a patience below 1.
    """

    def __init__(self, folder: PathLike, network: nn.Module, validator: Evaluator, patience: int | None = None) -> None:
        if patience is not None and patience < 1:
            raise ValueError(f"patience is {patience}; 1 or more is allowed, or null for none.")
        self.folder, self.network, self.validator, self.patience = Path(folder), network, validator, patience
        self.best, self.waited = float("-inf"), 0

    def attach(self, engine: Engine) -> None:
        """Look after each epoch of `engine` whether it was validated."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the file if this epoch's validation is the best."""
        if self.validator.state.epoch != engine.state.epoch:
            return
        score = float(self.validator.state.metrics[self.validator.state.key_metric_name])
        self.waited += 1
        if score > self.best:
            self.best, self.waited = score, 0
            self._write()
        if self.patience is not None and self.waited >= self.patience:
            engine.logger.info(f"no better validation in {self.waited}: the training ends early")
            engine.terminate()

    def state_dict(self) -> dict[str, float]:
        """The best score, and the validations since."""
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """As `state_dict` gave it."""
        self.best, self.waited = state["best"], int(state["waited"])

    def _write(self) -> None:
        if _is_first():
            make_directory(self.folder)
            save_atomically(_bare(self.network).state_dict(), self.folder / BEST)


def saved_epoch(file: Path) -> int:
    """The last whole epoch of a `checkpoint.pt`, from 1; 0 where it holds no trainer, which `restore` refuses.

    Raises:
        FileNotFoundError, ValueError: what `read_states` raises.
    """
    trainer = read_states(file).get("trainer", {})
    return int(trainer.get("iteration", 0)) // int(trainer.get("epoch_length") or 1)


def save_atomically(thing: Any, path: Path) -> None:
    """`torch.save` that leaves either the old file or the new one, never a part, not even a killed process's."""
    remove_parts(path)
    with atomic_file(path) as stream:
        torch.save(thing, stream)


def _is_first() -> bool:
    return not dist.is_initialized() or dist.get_rank() == 0


def _bare(thing: Any) -> Any:
    return thing.module if isinstance(thing, DistributedDataParallel) else thing
