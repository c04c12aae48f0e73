"""What a network is asked to do while it is measured."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD
from torch.utils._pytree import tree_leaves

CLASSES = 3
PASSES = ("eval", "training step")


def network_step(
    build: Callable[[], nn.Module],
    size: Sequence[int],
    which: str,
    device: str = "cpu",
    precision: str = "float32",
    batch: int = 1,
) -> "Eval | TrainingStep":
    """The step of a network from one channel to `CLASSES`, on a batch of random images of `size` voxels.

    "eval" is the forward pass without gradients; "training step" clears the gradients and runs the forward pass, the
    sum of the heads' cross entropies, the backward pass and one step of plain gradient descent. On a GPU "float32" is
    float32 in convolutions and matrix products alike, "tf32" lets both round their factors to TF32 (torch's default
    lets convolutions alone), and "bfloat16" is autocast.
    """
    torch.manual_seed(0)
    network = build().to(device).train(which == "training step")
    image = torch.randn(batch, 1, *size, device=device)
    if which == "eval":
        return Eval(network, image, precision)
    return TrainingStep(network, image, torch.randint(0, CLASSES, (batch, *size), device=device), precision)


class Eval:
    def __init__(self, network: nn.Module, image: Tensor, precision: str) -> None:
        self.network, self.image, self.precision = network, image, precision

    def __call__(self) -> Any:
        with torch.no_grad(), rounding(self.image, self.precision), _autocast(self.image, self.precision):
            return self.network(self.image)


class TrainingStep:
    def __init__(self, network: nn.Module, image: Tensor, label: Tensor, precision: str) -> None:
        self.network, self.image, self.label, self.precision = network, image, label, precision
        self.optimizer = SGD(network.parameters(), lr=1e-4)

    def __call__(self) -> None:
        with rounding(self.image, self.precision):
            self.optimizer.zero_grad()
            with _autocast(self.image, self.precision):
                heads = tree_leaves(self.network(self.image))
                loss = torch.stack([F.cross_entropy(head, self.label) for head in heads]).sum()
            loss.backward()
            self.optimizer.step()


@contextmanager
def rounding(image: Tensor, precision: str) -> Iterator[None]:
    """Let convolutions and matrix products on a GPU round their factors to TF32 with "tf32" alone.

    The setting is the process's, where steps of other precisions run too; torch's default is restored.
    """
    if image.device.type != "cuda":
        yield
        return
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def _autocast(image: Tensor, precision: str) -> AbstractContextManager[Any]:
    return torch.autocast(image.device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()
