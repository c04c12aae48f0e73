"""A cohort on a Ray cluster: the same cases, files and records as on one machine, by many processes.

All machines see the same folders under the same names. Each process, one a GPU or one for some cores, does cases as
`batch` does; one that is lost is replaced, and what it had in hand is done by the others.
"""

import logging
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from monai_unetfamily.bundles.bundle import Bundle
from monai_unetfamily.inference.batch import Run, begin_run
from monai_unetfamily.inference.crew import HELD, TRIES, Crew, Done, Lost, Opened
from monai_unetfamily.inference.outcomes import Outcome
from monai_unetfamily.inference.ray_session import LOCAL, Slots, find_slots, joined, require_ray
from monai_unetfamily.inference.settings import DEFAULTS, Settings
from monai_unetfamily.inference.worker import Orders, Ready, Worker
from monai_unetfamily.volumes.studies import Study

_LOGGER = logging.getLogger(__name__)


def predict_on_cluster(
    bundles: Sequence[Bundle],
    studies: Sequence[Study],
    output: Path,
    settings: Settings = DEFAULTS,
    *,
    address: str = LOCAL,
    device: str = "auto",
    cores: int | None = None,
    trust: bool = False,
    overwrite: bool = False,
    log: Callable[[str], None] = _LOGGER.info,
) -> Generator[Outcome, None, None]:
    """Do what `batch.predict_cohort` does, on a Ray cluster, and yield what became of each case as it ends.

    Args:
        bundles: as `predict_cohort` takes them; each worker opens them anew from their folders.
        studies, output, settings, overwrite: likewise.
        address: of the cluster, as `ray_session.joined` takes it.
        device: "cuda": one worker a GPU; "cpu": one for so many cores; "auto": GPUs where there are any.
        cores: of a worker, as `ray_session.find_slots` takes it.
        trust: whether the bundles may run code of their own, as `open_bundle` takes it.
        log: is given the lines of `predict_cohort`, how many workers there are, and of each that dies.

    Raises:
        ImportError: Ray is not installed.
        ConnectionError: there is no cluster at the address.
        FileNotFoundError: a worker does not see the folders that this process sees.
        ChildProcessError: workers die before they can begin.
        FileExistsError, ValueError, OSError: as `predict_cohort` does.
    """
    require_ray(address)
    run = begin_run(bundles, studies, output, settings, overwrite=overwrite, log=log)
    with joined(address):
        slots, machines = _slots(device, cores), dict[str, Any]()
        log(str(slots))
        with run.in_folder({"workers": machines}):
            orders = _orders(run, [bundle.root for bundle in bundles], slots, trust)
            run.turns.take(orders.beacon)
            with Crew(studies, _hirer(orders, slots), slots.number, log, _name) as crew:
                for answer in crew.answers():
                    if isinstance(answer, Opened):
                        _welcome(answer.value, machines, output, log)
                    else:
                        yield _outcome(run, answer)


def _slots(device: str, cores: int | None) -> Slots:
    from ray import nodes

    return find_slots(nodes(), device, cores)


def _orders(run: Run, roots: Sequence[Path], slots: Slots, trust: bool) -> Orders:
    return Orders(
        roots=tuple(root.absolute() for root in roots),
        output=run.output,
        settings=run.settings,
        request=run.request,
        overwrite=run.overwrite,
        here=Path.cwd(),
        beacon=uuid4().hex,
        device="cuda" if slots.gpus else "cpu",
        threads=max(1, slots.cores),
        trust=trust,
    )


def _hirer(orders: Orders, slots: Slots) -> Callable[[], Any]:
    from ray import remote

    room: dict[str, Any] = {
        "num_cpus": slots.cores,
        "num_gpus": slots.gpus,
        "max_concurrency": HELD,
        "scheduling_strategy": "SPREAD",
    }
    actor = remote(Worker).options(**room)
    return lambda: actor.remote(orders)


def _name(study: Study) -> str:
    return study.name


def _welcome(ready: Ready, machines: dict[str, Any], output: Path, log: Callable[[str], None]) -> None:
    """Take a worker into the run's account."""
    if ready.node not in machines and not ready.locks:
        log(f"{ready.node} does not heed locks in {output}: let no other run write there meanwhile")
    before = machines.get(ready.node, {"workers": 0})
    machines[ready.node] = {**ready.machine, "workers": before["workers"] + 1}


def _outcome(run: Run, answer: Done[Study] | Lost[Study]) -> Outcome:
    if isinstance(answer, Done):
        outcome: Outcome = answer.value
        mine = bool(answer.deaths) and outcome.skipped  # finished by a worker that died before it could say so
        return replace(outcome, skipped=False) if mine else outcome
    error = ChildProcessError(
        f"{TRIES} workers died with this case in hand, the last with no other: their memory may not suffice "
        "(--worker-cores makes fewer and larger ones), or a file brings the process down; try it alone, without --ray."
    )
    error.__cause__ = answer.reason
    return run.fail(answer.item, error)
