"""Where UNet 3+ spends its time: shares of its parts in one forward pass, in the paper's form and as computed here.

A part's time is taken around its modules, which run one after another; what lies between them is "other". Shares of one
form add up to 100 %; "all" is the form's time as a multiple of the paper's form's.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import nn

from benchmarks.measure import in_fresh_process
from benchmarks.steps import network_step
from benchmarks.table import Row
from benchmarks.upsampling import CASES as NETWORKS
from benchmarks.upsampling import Case, in_papers_form, unet3plus

PARTS = ("encoder", "branches from finer stages", "branches from coarser stages", "fusion", "heads", "other")
FORMS: dict[str, Callable[[Case], nn.Module]] = {"the paper's form": in_papers_form, "here": unet3plus}
ROUNDS = {"full": 5, "quick": 3, "toy": 1}


def rows(scale: str) -> list[Row]:
    """One row for each network and form that is evaluated in the table of UNet 3+."""
    cases = [case for case in NETWORKS[scale] if case.which == "eval"]
    return [row for case in cases for row in _rows_of(case, ROUNDS[scale])]


def _rows_of(case: Case, rounds: int) -> list[Row]:
    seconds = in_fresh_process(interleave_parts, case, rounds, torch.get_num_threads())
    whole = {form: sum(parts.values()) for form, parts in seconds.items()}
    return [
        {
            "network": case.title,
            "form": form,
            **{f"{part}, %": round(100 * parts[part] / whole[form]) for part in PARTS},
            "all": whole[form] / whole["the paper's form"],
        }
        for form, parts in seconds.items()
    ]


def interleave_parts(case: Case, rounds: int, threads: int) -> dict[str, dict[str, float]]:
    """Seconds of each part by form: medians over the rounds, in which the forms take turns."""
    torch.set_num_threads(threads)
    steps = {form: Watched(partial(build, case), case) for form, build in FORMS.items()}
    times = [{form: step() for form, step in steps.items()} for _ in range(1 + rounds)][1:]
    return {form: {part: median(each[form][part] for each in times) for part in PARTS} for form in steps}


class Watched:
    """A network's evaluation with a watch on each part."""

    def __init__(self, build: Callable[[], nn.Module], case: Case) -> None:
        self.spent: defaultdict[str, float] = defaultdict(float)
        self.step = network_step(build, case.size, "eval")
        for part, module in parts_of(self.step.network):
            module.register_forward_pre_hook(lambda *_, part=part: self._add(part, -perf_counter()))
            module.register_forward_hook(lambda *_, part=part: self._add(part, perf_counter()))

    def __call__(self) -> dict[str, float]:
        self.spent = defaultdict(float)
        start = perf_counter()
        self.step()
        self.spent["other"] = perf_counter() - start - sum(self.spent.values())
        return self.spent

    def _add(self, part: str, seconds: float) -> None:
        self.spent[part] += seconds


def parts_of(network: Any) -> Iterator[tuple[str, nn.Module]]:
    """The modules that a forward pass calls, each with its part; none is inside another."""
    yield from (("encoder", module) for module in (*network.En, *network.D))
    for key, branch in network.C.items():
        i, k = map(int, key.split("_"))
        yield PARTS[1 if k <= i else 2], branch
    yield from (("fusion", module) for module in network.De)
    yield "heads", network.head
