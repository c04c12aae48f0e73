"""How everything here is measured: ratios of interleaved runs with their spread, peak memory in fresh processes.

A *candidate* is a picklable function (usually a `functools.partial` of one at module level) that builds whatever it
needs and returns the step to measure. It is called in processes of its own, so that nothing that ran before it, and
no other candidate, is in its figures. The processes are forked from a server that has imported the packages and done
nothing else; it never asks for a GPU, since CUDA cannot be used in a process forked from one that did.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any, ParamSpec, TypeVar

import torch
from torch.utils.benchmark import Timer

P = ParamSpec("P")
T = TypeVar("T")
Step = Callable[[], object]
Candidate = Callable[[], Step]

PACKAGES = ["torch", "monai.networks.nets", "monai.inferers", "monai_unetfamily.nets"]
SAMPLE = 0.05  # seconds that one sample takes at least: a faster step is run several times
FAILURES = (  # a killed process is the first
    RuntimeError,
    MemoryError,
    ValueError,
    TypeError,
    ImportError,
    OSError,
    LookupError,
    AttributeError,
    AssertionError,
)


@dataclass(frozen=True)
class Spread:
    """The median of some ratios with their quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        low, _, high = quantiles(values, method="inclusive") if len(values) > 1 else [*values] * 3
        return cls(median(values), low, high)


@dataclass(frozen=True)
class Result:
    """Of one candidate: seconds of each round, the most bytes that a first step adds, or why there are none."""

    seconds: tuple[float, ...] = ()
    peak_bytes: int | None = None
    failure: str | None = None

    def time_over(self, other: "Result") -> Spread | None:
        """This one's time as a multiple of the other's, round by round."""
        pairs = list(zip(self.seconds, other.seconds, strict=False))
        return Spread.of([own / its for own, its in pairs]) if pairs else None

    def memory_over(self, other: "Result") -> float | None:
        """This one's peak as a multiple of the other's."""
        return self.peak_bytes / other.peak_bytes if self.peak_bytes and other.peak_bytes else None


def compare(candidates: Mapping[str, Candidate], *, rounds: int, device: str = "cpu") -> dict[str, Result]:
    """Measure the candidates against each other; one that fails has a result that says why.

    Each candidate's memory is measured in a fresh process; then one more process runs those that came back in turns,
    A B C A B C ..., `rounds` times after a round that warms up (0: memory alone). On a GPU, whose allocator counts
    each candidate's memory by itself, one process does all: starting CUDA takes seconds.
    """
    print(f"  {', '.join(candidates)}: memory, then {rounds} rounds", flush=True)
    if device == "cuda":
        try:
            return in_fresh_process(measured_together, candidates, rounds, device, torch.get_num_threads())
        except FAILURES as error:  # of the process
            return {name: Result(failure=reason(error)) for name in candidates}
    results = {name: _memory(candidate, device) for name, candidate in candidates.items()}
    return _timed(results, candidates, rounds, partial(in_fresh_process, interleave))


def interleave(candidates: Mapping[str, Candidate], rounds: int, threads: int) -> dict[str, list[float]]:
    """Seconds of each candidate's step in each round; every sample comes after one run of the same step."""
    timers = {
        name: Timer("step()", globals={"step": candidate()}, num_threads=threads)
        for name, candidate in candidates.items()
    }
    times = [
        {name: timer.blocked_autorange(min_run_time=SAMPLE).median for name, timer in timers.items()}
        for _ in range(1 + rounds)
    ]
    return {name: [each[name] for each in times[1:]] for name in timers}


def peak_bytes(candidate: Candidate, device: str, threads: int) -> int:
    """The most memory that the candidate's first step adds to what the process holds before it."""
    torch.set_num_threads(threads)
    step = candidate()
    if device == "cuda":
        torch.ones(1, 1, device=device).mm(torch.ones(1, 1, device=device))  # cuBLAS's workspace, which all share
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from what is resident now
    before = resident("VmRSS")
    step()
    return resident("VmHWM") - before


def in_fresh_process(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a picklable function in a process of its own; what it raises is raised here."""
    context = get_context("forkserver")
    context.set_forkserver_preload(PACKAGES)
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *args, **kwargs).result()


def reason(error: BaseException) -> str:
    """One line of an error."""
    return f"{type(error).__name__}: {str(error).partition('. ')[0].splitlines()[0] if str(error) else 'no message'}"


def _memory(candidate: Candidate, device: str) -> Result:
    try:
        return Result(peak_bytes=in_fresh_process(peak_bytes, candidate, device, torch.get_num_threads()))
    except FAILURES as error:
        return Result(failure=reason(error))


def measured_together(candidates: Mapping[str, Candidate], rounds: int, device: str, threads: int) -> dict[str, Result]:
    """What `compare` gives, in this process: each candidate's peak, then the rounds of those that came back."""
    results: dict[str, Result] = {}
    for name, candidate in candidates.items():
        try:
            results[name] = Result(peak_bytes=peak_bytes(candidate, device, threads))
        except FAILURES as error:
            results[name] = Result(failure=reason(error))
    return _timed(results, candidates, rounds, interleave)


def _timed(
    results: Mapping[str, Result], candidates: Mapping[str, Candidate], rounds: int, run: Callable[..., Any]
) -> dict[str, Result]:
    """The results with the seconds of each round, which `run` measures as `interleave` does."""
    alive = {name: candidate for name, candidate in candidates.items() if results[name].failure is None and rounds}
    try:
        seconds = run(alive, rounds, torch.get_num_threads())
    except FAILURES as error:
        return {name: replace(result, failure=result.failure or reason(error)) for name, result in results.items()}
    return {name: replace(result, seconds=tuple(seconds.get(name, ()))) for name, result in results.items()}


def now(device: str) -> float:
    """Seconds on the clock once the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
    return perf_counter()


def resident(field: str) -> int:
    """Bytes of this process by Linux's /proc/self/status: "VmRSS" now, "VmHWM" at most."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024
