"""Training in two processes, a device each, with DistributedDataParallel over NCCL; against one process without it.

Each process has a batch, so that twice the speed is the most that two can have.
"""

import json
import os
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import monotonic

import torch
from torch import distributed as dist
from torch.multiprocessing.spawn import ProcessException
from torch.nn.parallel import DistributedDataParallel

from benchmarks.gpu.networks import Case, Part
from benchmarks.measure import FAILURES, now, reason
from benchmarks.members import member
from benchmarks.steps import TrainingStep
from benchmarks.table import Row

NETWORK = "unet3plus"
WORLD = 2
CASES = {"full": Case((96, 96, 96), 2, 32), "quick": Case((64, 64, 64), 1, 16), "toy": Case((8, 8, 8), 1, 2, 3)}
STEPS = {"full": 20, "quick": 5, "toy": 1}
MOST_SECONDS = {"full": 90.0, "quick": 90.0, "toy": 3600.0}  # after which they hang; a test has no limit of its own


def parts(scale: str, device: str) -> Iterator[Part]:
    """The only part."""
    yield partial(rows, scale, device)


def rows(scale: str, device: str) -> Iterator[Row]:
    """One process, then two; where there is one device, a row that says so."""
    what: Row = {"what": f"{NETWORK}, training step, {CASES[scale].title}"}
    devices = torch.cuda.device_count() if device == "cuda" else WORLD
    try:
        alone = rate(scale, device, 1)
        yield {**what, "processes": 1, "samples a second": alone, "times one": 1.0}
        if devices < WORLD:
            yield {**what, "processes": WORLD, "samples a second": "not run: one device was there"}
            return
        both = rate(scale, device, WORLD)
        yield {**what, "processes": WORLD, "samples a second": both, "times one": both / alone}
    except FAILURES as error:
        yield {**what, "failed": reason(error)}


def rate(scale: str, device: str, world: int) -> float:
    """Samples a second of all processes together.

    Raises:
        RuntimeError: a process failed, or they did not end in time.
    """
    with TemporaryDirectory(prefix="unetfamily-bench-") as folder:
        group = torch.multiprocessing.start_processes(
            work, (scale, device, world, folder), world, join=False, start_method="spawn"
        )
        wait_for(group, MOST_SECONDS[scale])
        seconds = [json.loads(Path(folder, f"{rank}.json").read_text("utf-8")) for rank in range(world)]
    return world * CASES[scale].batch / max(seconds)


def wait_for(group: torch.multiprocessing.ProcessContext, most_seconds: float) -> None:
    """Wait until all processes have ended; end those that take longer.

    Raises:
        RuntimeError: they took too long; what one of them raised.
    """
    until = monotonic() + most_seconds
    try:
        while not group.join(timeout=1.0):
            if monotonic() > until:
                for process in group.processes:
                    process.kill()
                raise RuntimeError(f"{len(group.processes)} processes did not end in {most_seconds:g} s")
    except ProcessException as error:  # whose last line is what the process raised
        raise RuntimeError(str(error).strip().splitlines()[-1]) from error


def work(rank: int, scale: str, device: str, world: int, folder: str) -> None:
    """Train in one of the processes, and write the seconds of a step."""
    case, place = CASES[scale], torch.device(device, rank) if device == "cuda" else torch.device(device)
    if device == "cuda":
        torch.cuda.set_device(place)
    if world > 1:
        join_group(place, rank, world, folder)
    torch.manual_seed(rank)
    network = member(NETWORK, len(case.size), case.widths).to(place).train()
    trained = DistributedDataParallel(network) if world > 1 else network
    image = torch.randn(case.batch, 1, *case.size, device=place)
    label = torch.randint(0, 3, (case.batch, *case.size), device=place)
    step = TrainingStep(trained, image, label, "float32")
    times = []
    for _ in range(2 + STEPS[scale]):
        start = now(device)
        step()
        times.append(now(device) - start)
    Path(folder, f"{rank}.json").write_text(json.dumps(median(times[2:])), "utf-8")
    if world > 1:
        dist.destroy_process_group()


def join_group(place: torch.device, rank: int, world: int, folder: str) -> None:
    """Make this process one of a group on this machine: over NCCL on GPUs, over gloo on a CPU."""
    meet = {"init_method": f"file://{folder}/meet", "rank": rank, "world_size": world}
    if place.type == "cuda":
        os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")  # a machine without a network has no other interface
        dist.init_process_group("nccl", timeout=timedelta(seconds=60), device_id=place, **meet)
    else:
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        dist.init_process_group("gloo", timeout=timedelta(seconds=60), **meet)
