"""Predict a cohort on a Ray cluster; a worker that dies is replaced and its cases are done again."""

import logging
import os
import platform
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from secrets import token_hex
from socket import create_connection
from tempfile import TemporaryDirectory
from traceback import format_tb
from types import TracebackType
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import uuid4

import torch

from monai_unetfamily.bundles import Bundle, open_bundle
from monai_unetfamily.cohort import FAILURES, CaseLocks, CaseResult, Run, Stages, begin_run, machine_of, run_of
from monai_unetfamily.io import Study
from monai_unetfamily.prediction import DEFAULTS, Request, Settings, choose_device

# Work that Ray's actors do, and none of it lost: when a worker dies, what it had in hand goes to the others.


HELD = 3  # items that a worker has at a time: one is read, one computed, one written
TRIES = 3  # workers that may die of an item
_PATIENCE = 60  # seconds until it is said that no worker has begun

T = TypeVar("T")


@dataclass(eq=False)
class _Task(Generic[T]):
    item: T
    deaths: int = 0  # of workers that had it in hand


@dataclass(eq=False)
class _Worker(Generic[T]):
    """An actor, and what it is asked for at the moment: promise -> task, or None for its opening."""

    actor: Any
    asked: dict[Any, _Task[T] | None] = field(default_factory=dict)

    @property
    def opens(self) -> bool:
        return None in self.asked.values()

    def takes(self, task: _Task[T]) -> bool:
        """Whether it may have this task too; one of which a worker died, perhaps, is done alone."""
        apart = any(held is None or held.deaths for held in self.asked.values())
        return not self.asked if task.deaths else not apart and len(self.asked) < HELD


class Opened(NamedTuple):
    """What a worker's `open` gave."""

    value: Any


class Done(NamedTuple, Generic[T]):
    """What a worker's `do` gave for an item, of which other workers died before."""

    item: T
    value: Any
    deaths: int


class Lost(NamedTuple, Generic[T]):
    """An item that is given up, as `TRIES` workers died of it; and what Ray said of the last one."""

    item: T
    reason: Exception


class WorkerPool(Generic[T]):
    """Workers that share items; leaving the block ends them.

    A worker is asked to `open` first, then to `do` up to `HELD` items at a time. One that dies is replaced. What it had
    in hand is done again, each item alone, once the others are done: so one that kills its worker is found out.

    Args:
        items: to do.
        hire: makes an actor, of `HELD` threads, with methods `open()` and `do(item)`.
        size: number of workers.
        log: is told of workers that die, and where none begins.
        name: of an item, for the log.
    """

    def __init__(
        self,
        items: Iterable[T],
        start_worker: Callable[[], Any],
        size: int,
        log: Callable[[str], None],
        name: Callable[[T], str] = str,
    ) -> None:
        self.start_worker, self.size, self.log, self.name = start_worker, size, log, name
        self._fresh, self._suspects = deque(_Task(item) for item in items), deque[_Task[T]]()
        self._workers: list[_Worker[T]] = []
        self._stillborn = 0  # workers in a row that died before they had opened

    def __enter__(self) -> "WorkerPool[T]":
        """The same, its workers on their way."""
        for _ in range(min(self.size, len(self._fresh))):
            self._start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the workers, whatever they are at."""
        while self._workers:
            self._stop(self._workers[-1])

    def answers(self) -> Iterator[Opened | Done[T] | Lost[T]]:
        """What becomes of each worker and of each item, as it comes.

        Raises:
            ChildProcessError: workers die before they can begin, one after another.
            Exception: what a worker's method raised.
        """
        from ray import get
        from ray.exceptions import RayError, RayTaskError

        while self._fresh or self._suspects or any(worker.asked for worker in self._workers if not worker.opens):
            self._hand_out()
            worker, promise = self._next()
            try:
                value = get(promise)
            except RayTaskError as error:
                raise error.cause from None
            except RayError as error:  # died, out of reach, or its answer is gone with its machine
                yield from self._lose(worker, error)
                continue
            task = worker.asked.pop(promise)
            self._stillborn = 0
            yield Opened(value) if task is None else Done(task.item, value, task.deaths)

    def _start(self) -> None:
        worker = _Worker[T](self.start_worker())
        worker.asked[worker.actor.open.remote()] = None
        self._workers.append(worker)

    def _stop(self, worker: _Worker[T]) -> None:
        from ray import kill

        self._workers.remove(worker)
        kill(worker.actor)

    def _hand_out(self) -> None:
        """Give each worker one item, then each a second: the last ones end at about the same time."""
        for _ in range(HELD):
            for worker in sorted(self._workers, key=lambda worker: len(worker.asked)):
                queue = self._fresh or self._suspects
                if queue and worker.takes(queue[0]):
                    task = queue.popleft()
                    worker.asked[worker.actor.do.remote(task.item)] = task

    def _next(self) -> tuple[_Worker[T], Any]:
        """The next answer that is there."""
        from ray import wait

        askers = {promise: worker for worker in self._workers for promise in worker.asked}
        timeout: float | None = _PATIENCE
        while not (ready := wait(list(askers), timeout=timeout)[0]):
            timeout = None
            if all(worker.opens for worker in self._workers):
                self.log("no worker has begun yet: the cluster has nothing free, or starts slowly; waiting")
        return askers[ready[0]], ready[0]

    def _lose(self, worker: _Worker[T], error: Exception) -> Iterator[Lost[T]]:
        """Replace a worker; of what it had in hand, put back what may be done again."""
        self._stillborn += worker.opens
        if self._stillborn == TRIES:
            raise ChildProcessError(f"{TRIES} workers died before they could begin: {error}")
        tasks = [task for task in worker.asked.values() if task is not None]
        self._stop(worker)
        self._start()
        names = ", ".join(self.name(task.item) for task in tasks)
        self.log(f"a worker died; what it had in hand is done again: {names or 'nothing'}")
        for task in tasks:
            task.deaths += 1
            if task.deaths == TRIES:
                yield Lost(task.item, error)
            else:
                self._suspects.append(task)


# Ray, joined for the length of a run; and what it has to offer.

LOCAL = "local"
USUAL_CORES = 4  # of a worker without a GPU
_CLIENT = "ray://"
_DEVICES = ("auto", "cpu", "cuda")
_SECONDS = 10  # to answer
_STORE = 80 * 2**20  # bytes of shared memory: nothing but records goes through it, and less is not allowed


class Slots(NamedTuple):
    """Room for workers: how many, and of each the GPUs (0 or 1) and the cores."""

    number: int
    gpus: int
    cores: int

    def __str__(self) -> str:
        gpu = "a GPU and " if self.gpus else ""
        return f"{self.number} worker{'s' * (self.number != 1)}, {gpu}{self.cores} core{'s' * (self.cores != 1)} each"


def require_ray(address: str) -> None:
    """Refuse to go on without Ray, or to an address that is not of a cluster's own network.

    Raises:
        ImportError: Ray is not installed.
        ValueError: a Ray Client address.

    >>> require_ray("ray://head:1")
    Traceback (most recent call last):
    ValueError: address is 'ray://head:1', of Ray Client; local, auto, HOST:PORT are allowed: begin on the cluster.
    """
    if find_spec("ray") is None:
        raise ImportError("Ray is needed, which this environment lacks: pip install 'monai-unetfamily[cluster]'.")
    if address.startswith(_CLIENT):
        raise ValueError(
            f"address is {address!r}, of Ray Client; local, auto, HOST:PORT are allowed: begin on the cluster."
        )


@contextmanager
def joined(address: str) -> Iterator[None]:
    """The block in which this process is part of a Ray cluster; one that has joined before stays where it is.

    Args:
        address: HOST:PORT, "auto" for that of this machine, or "local": one of this machine alone, which begins and
            ends with the block. It has no dashboard; where this is what loads Ray, it sends nothing, too, and asks
            whoever speaks to it for a token.

    Raises:
        ConnectionError: there is no cluster.
    """
    if address == LOCAL and "ray" not in sys.modules:
        _keep_private()
    import ray

    if ray.is_initialized():
        yield
        return
    way: AbstractContextManager[dict[str, Any]] = _own_cluster() if address == LOCAL else nullcontext({})
    with way as own:
        try:
            _init(address, own)
            yield
        finally:
            ray.shutdown()


@contextmanager
def _own_cluster() -> Iterator[dict[str, Any]]:
    """What a cluster of this machine begins with; its folder goes with the block."""
    with TemporaryDirectory(prefix="unetfamily-", dir=_short_folder(), ignore_cleanup_errors=True) as folder:
        yield {"include_dashboard": False, "object_store_memory": _STORE, "_temp_dir": folder}


def _init(address: str, own: Mapping[str, Any]) -> None:
    import ray
    from ray.exceptions import RayError

    _require_somebody(address)
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except Exception as error:
        if not isinstance(error, RuntimeError | RayError) and type(error) is not Exception:
            raise
        # Ray raises a bare Exception where a node has not started within its limit of 30 seconds
        raise ConnectionError(f"{address}: no Ray cluster could be joined: {error}") from error


def _require_somebody(address: str) -> None:
    """Refuse HOST:PORT where nobody listens, for which Ray itself would wait minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        try:
            create_connection((host.strip("[]"), int(port)), timeout=_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise ConnectionError(f"{address}: no Ray cluster answers there: {error}") from error


def _keep_private() -> None:
    """Send nothing, and let nobody in, since the ports are open to the network; Ray looks at this when it loads."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", token_hex(32))


def _short_folder() -> str | None:
    """Where the names of sockets do not grow too long: 107 bytes are allowed."""
    return "/tmp" if Path("/tmp").is_dir() else None


def find_slots(nodes: Sequence[Mapping[str, Any]], device: str = "auto", cores: int | None = None) -> Slots:
    """Room for workers on a cluster: one a GPU, where there are any, or else one for so many cores.

    Args:
        nodes: as `ray.nodes()` lists them.
        device: "auto", "cpu" or "cuda".
        cores: of a worker; by default 4, or a GPU's share of its machine.

    Raises:
        ValueError: another device, no GPU where it is asked for, more cores than a machine has.

    >>> small, large = ({"Alive": True, "Resources": {"CPU": n, "GPU": g}} for n, g in ((8.0, 0), (32.0, 4.0)))
    >>> find_slots([small, large]), find_slots([small, large], "cpu"), find_slots([small], cores=1)
    (Slots(number=4, gpus=1, cores=8), Slots(number=10, gpus=0, cores=4), Slots(number=8, gpus=0, cores=1))
    """
    if device not in _DEVICES:
        raise ValueError(f"device is {device!r}; with Ray auto, cpu or cuda is allowed: it gives each worker its GPU.")
    machines = [node["Resources"] for node in nodes if node["Alive"]]
    sizes = [(int(machine.get("CPU", 0)), int(machine.get("GPU", 0))) for machine in machines]
    with_gpu = [(cpus, gpus) for cpus, gpus in sizes if gpus]
    if device == "cuda" and not with_gpu:
        raise ValueError("device is 'cuda'; no machine of the cluster has a GPU: use auto or cpu.")
    return _of_gpus(with_gpu, cores) if with_gpu and device != "cpu" else _of_cores([cpus for cpus, _ in sizes], cores)


def _of_gpus(machines: Sequence[tuple[int, int]], cores: int | None) -> Slots:
    share = min(cpus // gpus for cpus, gpus in machines) if cores is None else cores
    _require_cores(share, max(cpus for cpus, _ in machines), least=0)
    return Slots(sum(min(gpus, cpus // share) if share else gpus for cpus, gpus in machines), 1, share)


def _of_cores(machines: Sequence[int], cores: int | None) -> Slots:
    share = min(USUAL_CORES, max(machines)) if cores is None else cores
    _require_cores(share, max(machines), least=1)
    return Slots(sum(cpus // share for cpus in machines), 0, share)


def _require_cores(cores: int, most: int, least: int) -> None:
    if not least <= cores <= most:
        raise ValueError(f"a worker's cores are {cores}; {least} to {most} are allowed on this cluster's machines.")


# What a process of a cluster does: it opens the bundles once, then does one case after another.


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
        locks = CaseLocks(orders.output, _silent)
        if not locks.is_visible(orders.beacon):
            raise FileNotFoundError(self._elsewhere(orders.output, "is another folder than where the run began"))
        bundles = [open_bundle(root, device, trust=orders.trust) for root in orders.roots]
        run = run_of(bundles, orders.output, orders.settings, orders.overwrite, locks)
        if run.request != orders.request:
            raise ValueError(self._elsewhere(orders.roots[0], "or one of its ensemble, is another bundle"))
        torch.set_num_threads(orders.threads)
        self.stages = Stages(run.read, run.compute, run.write, threads=orders.threads, side_threads=run.side_threads)
        return Ready(platform.node(), machine_of(device), locks.excludes_others(orders.beacon))

    def do(self, study: Study) -> CaseResult:
        """One case; three threads may ask at a time."""
        case_result = self.stages.do(study)
        return replace(case_result, error=_portable(case_result.error)) if case_result.error else case_result

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


# A cohort on a Ray cluster: the same cases, files and records as on one machine, by many processes.
#
# All machines see the same folders under the same names. Each process, one a GPU or one for some cores, does cases as
# `batch` does; one that is lost is replaced, and what it had in hand is done by the others.

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
) -> Generator[CaseResult, None, None]:
    """Do what `cohort.predict_cohort` does, on a Ray cluster, and yield what became of each case as it ends.

    Args:
        bundles: as `predict_cohort` takes them; each worker opens them anew from their folders.
        studies, output, settings, overwrite: likewise.
        address: of the cluster, as `joined` takes it.
        device: "cuda": one worker a GPU; "cpu": one for so many cores; "auto": GPUs where there are any.
        cores: of a worker, as `find_slots` takes it.
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
            run.locks.acquire(orders.beacon)
            with WorkerPool(studies, _worker_starter(orders, slots), slots.number, log, _name) as pool:
                for answer in pool.answers():
                    if isinstance(answer, Opened):
                        _welcome(answer.value, machines, output, log)
                    else:
                        yield _case_result(run, answer)


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


def _worker_starter(orders: Orders, slots: Slots) -> Callable[[], Any]:
    from ray import remote

    resources: dict[str, Any] = {
        "num_cpus": slots.cores,
        "num_gpus": slots.gpus,
        "max_concurrency": HELD,
        "scheduling_strategy": "SPREAD",
    }
    actor = remote(Worker).options(**resources)
    return lambda: actor.remote(orders)


def _name(study: Study) -> str:
    return study.name


def _welcome(ready: Ready, machines: dict[str, Any], output: Path, log: Callable[[str], None]) -> None:
    """Take a worker into the run's account."""
    if ready.node not in machines and not ready.locks:
        log(f"{ready.node} does not heed locks in {output}: let no other run write there meanwhile")
    before = machines.get(ready.node, {"workers": 0})
    machines[ready.node] = {**ready.machine, "workers": before["workers"] + 1}


def _case_result(run: Run, answer: Done[Study] | Lost[Study]) -> CaseResult:
    if isinstance(answer, Done):
        case_result: CaseResult = answer.value
        mine = bool(answer.deaths) and case_result.skipped  # finished by a worker that died before it could say so
        return replace(case_result, skipped=False) if mine else case_result
    error = ChildProcessError(
        f"{TRIES} workers died with this case in hand, the last with no other: their memory may not suffice "
        "(--worker-cores makes fewer and larger ones), or a file brings the process down; try it alone, without --ray."
    )
    error.__cause__ = answer.reason
    return run.fail(answer.item, error)
