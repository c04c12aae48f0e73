"""What each saving is worth by itself: a layer as the networks compute it against the plain form of the same layer.

"eval" is the forward pass without gradients, "training step" the forward and the backward pass. The last row is a whole
network: its plain form given to `torch.compile`, the other way to save time.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measure import Spread, Step, compare
from benchmarks.steps import PASSES, network_step
from benchmarks.table import Row
from benchmarks.upsampling import Case, in_papers_form, widths
from monai_unetfamily.nets.layers import UpsampleConv, conv_head
from monai_unetfamily.nets.layers.convolution import ConvLayer, lay_out
from tests.support.paper_form import paper_form

Size = tuple[int, ...]
Layer = Callable[[], nn.Module]

BATCH_NORM = ("batch", {"affine": True})
ROUNDS = {"full": 9, "quick": 3, "toy": 1}
COMPILED = {"full": Case(widths(16), 16, (64, 64, 64)), "quick": None, "toy": None}  # minutes of compilation


class Branch(nn.Module):
    """A branch of UNet 3+ from a coarser stage: interpolate to `size`, convolve."""

    def __init__(self, in_channels: int, out_channels: int, size: Size) -> None:
        super().__init__()
        self.size = size
        self.up = UpsampleConv(len(size), in_channels, out_channels, act=None)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(x, self.size)


def branch(C: int, c: int, size: Size, factor: int) -> tuple[str, Layer, Size]:
    """Its title, how to build it, and the shape (C, *coarse) of what it reads."""
    title = f"{len(size)}-D branch, {C} > {c} channels, x{factor} to {'x'.join(map(str, size))}"
    return title, partial(Branch, C, c, size), (C, *(n // factor for n in size))


def layer(title: str, C: int, c: int, size: Size, **options: Any) -> tuple[str, Layer, Size]:
    return (
        f"{title}, {C} > {c} channels, {'x'.join(map(str, size))}",
        partial(ConvLayer, len(size), C, c, **{"act": None, "norm": None, **options}),
        (C, *size),
    )


def head(C: int, classes: int, size: Size) -> tuple[str, Layer, Size]:
    title = f"head, {C} channels > {classes} classes, {'x'.join(map(str, size))}"
    return title, partial(conv_head, len(size), C, classes, 3), (C, *size)


CASES: dict[str, list[tuple[str, Layer, Size]]] = {
    "full": [
        branch(320, 64, (320, 320), 2),
        branch(320, 64, (320, 320), 4),
        branch(1024, 64, (320, 320), 16),
        branch(80, 16, (96, 96, 96), 2),
        branch(80, 16, (96, 96, 96), 4),
        branch(160, 32, (64, 64, 64), 2),
        branch(512, 32, (64, 64, 64), 16),
        layer("convolution", 320, 320, (160, 160)),
        layer("convolution", 80, 80, (96, 96, 96)),
        layer("convolution", 32, 32, (24, 24, 24)),
        layer("with instance norm", 80, 80, (64, 64, 64), norm="instance"),
        layer("with batch norm", 80, 80, (64, 64, 64), norm=BATCH_NORM),
        head(320, 3, (320, 320)),
        head(80, 3, (96, 96, 96)),
    ],
    "quick": [branch(80, 16, (32, 32, 32), 2), layer("with instance norm", 16, 16, (32, 32, 32), norm="instance")],
    "toy": [branch(4, 2, (8, 8), 2), layer("with batch norm", 2, 2, (4, 4, 4), norm=BATCH_NORM), head(2, 3, (8, 8))],
}


def rows(scale: str) -> list[Row]:
    """One row for each layer, and one for a compiled network."""
    found = [_row(*case, ROUNDS[scale]) for case in CASES[scale]]
    compiled = COMPILED[scale]
    return found if compiled is None else [*found, _compiled_row(compiled, ROUNDS[scale])]


def _row(title: str, build: Layer, shape: Size, rounds: int) -> Row:
    steps = {which: partial(layer_step, build, shape, which) for which in PASSES}
    return {"what": title, **{f"{which}, speed": _speed(step, rounds) for which, step in steps.items()}}


def _compiled_row(case: Case, rounds: int) -> Row:
    speed = _speed(partial(compiled_step, case), rounds)
    return {"what": f"torch.compile of the plain form, {case.title}", f"{PASSES[0]}, speed": speed}


def _speed(step: Callable[[str], Step], rounds: int) -> Spread | str | None:
    results = compare({form: partial(step, form) for form in ("here", "plain")}, rounds=rounds)
    here, plain = results["here"], results["plain"]
    return plain.time_over(here) or here.failure or plain.failure


def layer_step(build: Layer, shape: Size, which: str, form: str) -> Step:
    """One pass on a map (1, *shape); the plain form reads torch's usual layout, ours what the layer before it gives."""
    torch.manual_seed(0)
    network, x = build().train(which == "training step"), torch.randn(1, *shape)
    if form == "plain":
        network = paper_form(nn.Sequential(network))
    else:
        x = lay_out(x)
    if which == "eval":
        return torch.no_grad()(partial(network, x))
    x.requires_grad_()
    return lambda: network(x).sum().backward()


def compiled_step(case: Case, form: str) -> Step:
    """The evaluation of the plain form, compiled or not."""
    build = partial(in_papers_form, case)
    return network_step((lambda: compiled(build)) if form == "here" else build, case.size, "eval")


def compiled(build: Layer) -> nn.Module:
    network = build()
    network.compile()
    return network
