"""What a process of a cluster does: it opens the bundles once, then does one case after another."""

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from traceback import format_tb
from typing import Any, NamedTuple

import torch

from monai_unetfamily.bundles.bundle import open_bundle
from monai_unetfamily.inference.batch import run_of
from monai_unetfamily.inference.cohort import machine_of
from monai_unetfamily.inference.device import choose_device
from monai_unetfamily.inference.outcomes import FAILURES, Outcome
from monai_unetfamily.inference.overlap import Stages
from monai_unetfamily.inference.records import Request
from monai_unetfamily.inference.settings import Settings
from monai_unetfamily.inference.turns import Turns
from monai_unetfamily.volumes.studies import Study


@dataclass(frozen=True)
class Orders:
    """What every worker of a run is told.

    Attributes:
        roots: the bundles' folders.
        output: folder of the results.
        settings, overwrite: as `predict_cohort` takes them.
        request: what they come to, by hashes.
        here: the folder that relative names start from.
        beacon: a case of this name is the caller's turn in `output` as long as the run lasts.
        device: as `choose_device` takes it.
        threads: of torch.
        trust: as `open_bundle` takes it.
    """

    roots: tuple[Path, ...]
    output: Path
    settings: Settings
    request: Request
    overwrite: bool
    here: Path
    beacon: str
    device: str
    threads: int
    trust: bool


class Ready(NamedTuple):
    """A worker that has opened: the name of its machine, what `run.json` says of it, and whether locks reach it."""

    node: str
    machine: Mapping[str, Any]
    locks: bool


class Worker:
    """A process that does cases as it is told; what can go wrong goes wrong in `open`."""

    def __init__(self, orders: Orders) -> None:
        self.orders = orders

    def open(self) -> Ready:
        """Open the bundles.

        Raises:
            FileNotFoundError: a folder that is not there on this machine, or is another one.
            ValueError: a bundle that is another one, or a device that is not there.
        """
        orders, device = self.orders, choose_device(self.orders.device)
        self._go_there()
        turns = Turns(orders.output, _silent)
        if not turns.shows(orders.beacon):
            raise FileNotFoundError(self._elsewhere(orders.output, "is another folder than where the run began"))
        bundles = [open_bundle(root, device, trust=orders.trust) for root in orders.roots]
        run = run_of(bundles, orders.output, orders.settings, orders.overwrite, turns)
        if run.request != orders.request:
            raise ValueError(self._elsewhere(orders.roots[0], "or one of its ensemble, is another bundle"))
        torch.set_num_threads(orders.threads)
        self.stages = Stages(run.read, run.compute, run.write, threads=orders.threads, side_threads=run.side_threads)
        return Ready(platform.node(), machine_of(device), turns.binds(orders.beacon))

    def do(self, study: Study) -> Outcome:
        """One case; three threads may ask at a time."""
        outcome = self.stages.do(study)
        return replace(outcome, error=_portable(outcome.error)) if outcome.error else outcome

    def _go_there(self) -> None:
        orders = self.orders
        for folder in (orders.here, orders.here / orders.output, *orders.roots):
            if not folder.is_dir():
                raise FileNotFoundError(self._elsewhere(folder, "is not there"))
        os.chdir(orders.here)

    def _elsewhere(self, folder: Path, what: str) -> str:
        return (
            f"{folder}: on {platform.node()} {what}; every machine of the cluster needs the same folders under the "
            "same names: put them on a file system that all share."
        )


def _silent(line: str) -> None:
    """Nobody reads what a worker says."""


def _portable(error: Exception) -> Exception:
    """The same error of a kind that any process can rebuild, with its traceback as a note."""
    kind = next(kind for kind in FAILURES if isinstance(error, kind))
    copy = kind(str(error))
    copy.add_note("".join(["On the worker:\n", *format_tb(error.__traceback__)]))
    return copy
