"""HybridLoss beside DiceCELoss, forward and backward, interleaved: python tests/benchmarks/hybrid_loss.py."""

from statistics import median
from time import perf_counter

import torch
from monai.losses import DiceCELoss

from monai_unetfamily.losses import HybridLoss

CLASSES, SIZE, ROUNDS = 3, 64, 9


def seconds(loss: torch.nn.Module, logits: torch.Tensor, label: torch.Tensor) -> float:
    start = perf_counter()
    loss(logits.requires_grad_(), label).backward()
    return perf_counter() - start


def main() -> None:
    logits = torch.randn(1, CLASSES, SIZE, SIZE, SIZE)
    label = torch.randint(0, CLASSES, (1, 1, SIZE, SIZE, SIZE))
    losses = {"HybridLoss": HybridLoss(), "DiceCELoss": DiceCELoss(to_onehot_y=True, softmax=True)}
    times: dict[str, list[float]] = {name: [] for name in losses}
    for _ in range(ROUNDS):
        for name, loss in losses.items():
            times[name].append(seconds(loss, logits, label))
    hybrid, plain = (median(each[1:]) for each in times.values())  # the first round warms up
    print(
        f"{CLASSES} classes, {SIZE}^3: {1e3 * hybrid:.0f} ms against {1e3 * plain:.0f} ms, {hybrid / plain:.1f} times"
    )


if __name__ == "__main__":
    main()
