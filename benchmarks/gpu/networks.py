"""Each network of the family in float32, TF32 and bfloat16, with the coarse-grid form on and off.

A network has the form where its convolutions read interpolated maps (`nets.upsampling`). "on" takes it wherever the
rule for CPUs does, "off" interpolates first everywhere, as a GPU does by default.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.measure import Candidate, Result, Step, compare
from benchmarks.members import member
from benchmarks.steps import network_step
from benchmarks.table import Row
from monai_unetfamily.nets import list_networks
from monai_unetfamily.nets.layers import convolution
from monai_unetfamily.nets.layers.convolution import ConvLayer
from monai_unetfamily.nets.layers.upsampling import Upsampled, coarse_is_cheaper

PRECISIONS = ("float32", "tf32", "bfloat16")
BASE = ("off", "float32")
Rule = Callable[[Upsampled, Tensor], bool]
Part = Callable[[], Iterator[Row]]  # of a table: measures, and gives its rows


class Case(NamedTuple):
    """Voxels of the input, images in a batch, and the first of the widths, which double from stage to stage."""

    size: tuple[int, ...]
    batch: int
    first: int
    stages: int = 5

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(self.first << stage for stage in range(self.stages))

    @property
    def title(self) -> str:
        return f"{self.batch} of {'x'.join(map(str, self.size))}, {self.widths[0]}..{self.widths[-1]}"


CASES: dict[str, list[Case]] = {
    "full": [Case((320, 320), 8, 64), Case((96, 96, 96), 2, 32)],
    "quick": [Case((256, 256), 4, 32), Case((64, 64, 64), 1, 16)],
    "toy": [Case((16, 24), 2, 4, 4), Case((16, 16, 16), 1, 2, 4)],
}
ROUNDS = {"full": 5, "quick": 2, "toy": 1}


def parts(scale: str, device: str) -> Iterator[Part]:
    """One part for each input and network, with a row for each form and precision."""
    for case in CASES[scale]:
        for name in list_networks():
            yield partial(rows_of, case, name, device, ROUNDS[scale])


def rows_of(case: Case, name: str, device: str, rounds: int) -> Iterator[Row]:
    build = partial(member, name, len(case.size), case.widths)
    layers = coarse_layers(build, case)
    results = compare(candidates(build, case, device, layers), rounds=rounds, device=device)
    base = results[", ".join(BASE)]
    for label, own in results.items():
        form, precision = label.split(", ")
        shown = form if layers else "none"
        yield {
            "inputs, widths": case.title,
            "network": name,
            "coarse grid": f"on, {layers} layers" if form == "on" else shown,
            "precision": precision,
            **figures(case, own, base),
        }


def figures(case: Case, own: Result, base: Result) -> Row:
    """Time, throughput, speed as a multiple of the plain form's in float32, and memory."""
    seconds = median(own.seconds) if own.seconds else None
    return {
        "ms": seconds and 1e3 * seconds,
        "inputs a second": seconds and case.batch / seconds,
        "speed": base.time_over(own),
        "peak MiB": own.peak_bytes and own.peak_bytes >> 20,
        **failed(own),
    }


def failed(own: Result) -> Row:
    """A further cell of a row whose candidate failed."""
    return {"failed": own.failure} if own.failure else {}


def candidates(build: Callable[[], nn.Module], case: Case, device: str, layers: int) -> dict[str, Candidate]:
    forms = ("off", "on") if layers else ("off",)
    return {
        f"{form}, {precision}": partial(formed_step, form, build, case, device, precision)
        for form in forms
        for precision in PRECISIONS
    }


def formed_step(form: str, build: Callable[[], nn.Module], case: Case, device: str, precision: str) -> Step:
    """The evaluation step with the coarse-grid form "on" or "off"."""
    return Formed(network_step(build, case.size, "eval", device, precision, case.batch), FORMS[form])


class Formed:
    """A step under a rule of its own for which convolutions take the coarse-grid form."""

    def __init__(self, step: Step, rule: Rule) -> None:
        self.step, self.rule = step, rule

    def __call__(self) -> Any:
        before = convolution.coarse_is_cheaper
        convolution.coarse_is_cheaper = self.rule
        try:
            return self.step()
        finally:
            convolution.coarse_is_cheaper = before


def never(x: Upsampled, kernel: Tensor) -> bool:
    return False


def as_on_a_cpu(x: Upsampled, kernel: Tensor) -> bool:
    """The rule for CPUs, on any device: from shapes alone."""
    return _as_on_a_cpu(tuple(x.coarse.shape), tuple(x.size), tuple(kernel.shape))


@lru_cache(maxsize=1024)
def _as_on_a_cpu(coarse: tuple[int, ...], size: tuple[int, ...], kernel: tuple[int, ...]) -> bool:
    return coarse_is_cheaper(Upsampled(torch.empty(coarse, device="meta"), size), torch.empty(kernel, device="meta"))


FORMS: dict[str, Rule] = {"on": as_on_a_cpu, "off": never}


def coarse_layers(build: Callable[[], nn.Module], case: Case) -> int:
    """How many maps of a forward pass are convolved on their coarse grid by the rule for CPUs; nothing is computed."""
    taken: list[bool] = []

    def watch(layer: ConvLayer, maps: tuple[Tensor | Upsampled, ...]) -> None:
        for x in maps:
            if isinstance(x, Upsampled):
                out_channels, _, *taps = layer.conv.weight.shape
                taken.append(as_on_a_cpu(x, torch.empty(out_channels, x.coarse.shape[1], *taps)))

    with torch.device("meta"), torch.no_grad():
        network = build().eval()
        for module in network.modules():
            if isinstance(module, ConvLayer):
                module.register_forward_pre_hook(watch)
        network(torch.zeros(case.batch, 1, *case.size))
    return sum(taken)
