"""UNetPlusPlus beside MONAI's BasicUNetPlusPlus, interleaved: python tests/benchmarks/nested.py [ROUNDS] [--cpu].

With --cpu the time is the processor's, which other work on the machine changes less; give it one thread.

Widths, norm, activation and upsampling are equal. On the way up to stage 0 MONAI's keeps the channels of stage 1, and
halves them elsewhere; ours always takes those of the target. With the first widths, MONAI's own default, the two are
the same network node by node; with the second MONAI's has more in row 0. In evaluation ours computes the last head
alone, MONAI's all four; in training both compute and train four.
"""

import sys
from copy import deepcopy
from itertools import product
from statistics import median, quantiles
from time import perf_counter, process_time
from typing import Any

import torch
from monai.networks.nets.basic_unetplusplus import BasicUNetPlusPlus
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from monai_unetfamily.nets import UNetPlusPlus
from monai_unetfamily.nets.profiling import count_macs

CLASSES = 2
CLOCK = process_time if "--cpu" in sys.argv else perf_counter
SIZES = ((256, 256), (48, 48, 48))
WIDTHS = ((32, 32, 64, 128, 256), (16, 32, 64, 128, 256))
LAYERS: dict[str, Any] = {
    "act": ("leakyrelu", {"negative_slope": 0.1, "inplace": True}),
    "norm": ("instance", {"affine": True}),
}


def networks(dims: int, widths: tuple[int, ...], deep_supervision: bool) -> list[nn.Module]:
    options = {**LAYERS, "deep_supervision": deep_supervision}
    ours = UNetPlusPlus(dims, 1, CLASSES, features=widths, upsample="transposed", **options)
    theirs = BasicUNetPlusPlus(dims, 1, CLASSES, features=(*widths, widths[0]), upsample="deconv", **options)
    return [ours, theirs]


def evaluate(network: nn.Module, image: Tensor, label: Tensor) -> None:
    with torch.inference_mode():
        network(image)


def train(network: nn.Module, image: Tensor, label: Tensor) -> None:
    network.zero_grad()
    torch.stack([cross_entropy(head, label) for head in network(image)]).sum().backward()


def seconds_of(pair: list[nn.Module], size: tuple[int, ...], training: bool, rounds: int) -> list[tuple[float, ...]]:
    """Seconds of a step of each, round by round, after one that warms up."""
    image, label = torch.randn(1, 1, *size), torch.randint(CLASSES, (1, *size))
    step, times = (train if training else evaluate), []
    for _ in range(rounds + 1):
        row = []
        for network in pair:
            start = CLOCK()
            step(network.train(training), image, label)
            row.append(CLOCK() - start)
        times.append(tuple(row))
    return times[1:]


def costs(pair: list[nn.Module], size: tuple[int, ...]) -> str:
    parameters = [f"{sum(p.numel() for p in net.parameters()):,}" for net in pair]
    macs = [f"{count_macs(deepcopy(net).to('meta'), (1, 1, *size)) / 1e9:.2f}" for net in pair]
    return f"parameters {' / '.join(parameters)}, GMAC {' / '.join(macs)}"


def main() -> None:
    rounds = next((int(a) for a in sys.argv[1:] if a.isdecimal()), 15)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {CLOCK.__name__}; ours / MONAI's (quartiles)")
    for size, widths, training in product(SIZES, WIDTHS, (False, True)):
        pair = networks(len(size), widths, deep_supervision=training)
        what = f"{'train' if training else 'eval'} {'x'.join(map(str, size))}, widths {widths}, {costs(pair, size)}"
        times = seconds_of(pair, size, training, rounds)
        low, ratio, high = quantiles(ours / theirs for ours, theirs in times)
        ours, theirs = (1e3 * median(each) for each in zip(*times, strict=True))
        print(f"{what}: {ours:.0f} / {theirs:.0f} ms, ratio {ratio:.2f} ({low:.2f} to {high:.2f})", flush=True)


if __name__ == "__main__":
    main()
