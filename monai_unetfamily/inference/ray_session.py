"""Ray, joined for the length of a run; and what it has to offer."""

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from secrets import token_hex
from socket import create_connection
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

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
