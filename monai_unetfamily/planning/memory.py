"""Memory and operations of a training step, and the machine that a plan is made for."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from monai.losses import DiceCELoss, DiceFocalLoss
from torch import Tensor, nn

from monai_unetfamily.losses import WeightedHeadsLoss
from monai_unetfamily.nets import count_macs, create_network, peak_of_training
from monai_unetfamily.nets.layers import Axes
from monai_unetfamily.planning.decisions import Decision

# What a step of training costs, measured on the network itself.
#
# Counted on meta tensors, which have sizes and no values: forward pass, loss and backward pass of one patch, as mixed
# precision keeps them (maps in 16 bits, logits and loss in 32) or in float32. Weights, their gradients, both moments
# of AdamW and the 16-bit copy come on top. What a driver, a convolution's working space and the allocator take is not
# counted: `USABLE` leaves a fifth for them.


USABLE = 0.8  # of the memory
_BYTES_A_WEIGHT = {True: 4 + 4 + 8 + 2, False: 4 + 4 + 8}  # weight, gradient, moments; the 16-bit copy


@dataclass(frozen=True)
class Network:
    """A member of the family with its arguments, as `create_network` takes them."""

    name: str
    spatial_dims: int
    in_channels: int
    out_channels: int
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def arguments(self) -> dict[str, Any]:
        """All that `create_network` takes beside the name."""
        channels = {"in_channels": self.in_channels, "out_channels": self.out_channels}
        return {"spatial_dims": self.spatial_dims, **channels, **self.options}


@dataclass(frozen=True)
class StepCost:
    """Of one patch: bytes of its maps, logits and loss, and operations forward (MAC); and bytes of all weights."""

    patch_bytes: int
    macs: int
    weight_bytes: int
    parameters: int

    def bytes(self, batch_size: int) -> int:
        """Of a step with so many patches."""
        return self.weight_bytes + batch_size * self.patch_bytes


def measure_step(network: Network, patch: Axes, *, mixed_precision: bool) -> StepCost:
    """The cost of a training step with one patch.

    >>> cost = measure_step(Network("unet", 2, 1, 3, {"features": (8, 16)}), (64, 64), mixed_precision=True)
    >>> cost.parameters, cost.patch_bytes // 2**10
    (6571, 1200)
    """
    return _measured(json.dumps([network.name, network.arguments]), tuple(patch), mixed_precision)


@cache
def _measured(network: str, patch: Axes, mixed_precision: bool) -> StepCost:
    name, arguments = json.loads(network)
    with torch.device("meta"):
        module = create_network(name, **arguments)
    shape = (1, arguments["in_channels"], *patch)
    macs = count_macs(module, shape)
    parameters = sum(p.numel() for p in module.parameters())
    softmax = arguments.get("background", True)
    return StepCost(
        patch_bytes=_patch_bytes(module, shape, softmax=softmax, mixed_precision=mixed_precision),
        macs=macs,
        weight_bytes=parameters * _BYTES_A_WEIGHT[mixed_precision],
        parameters=parameters,
    )


def _patch_bytes(network: nn.Module, shape: Axes, *, softmax: bool, mixed_precision: bool) -> int:
    loss = WeightedHeadsLoss(
        DiceCELoss(to_onehot_y=True, softmax=True) if softmax else DiceFocalLoss(sigmoid=True, gamma=0.0)
    )
    network = network.half() if mixed_precision else network

    def backward(output: Any) -> None:
        logits = getattr(output, "logits", output)
        heads: list[Tensor] = [head.float() for head in (logits if isinstance(logits, list) else [logits])]
        channels = 1 if softmax else heads[0].shape[1]
        label = torch.zeros(len(heads[0]), channels, *shape[2:], device=heads[0].device)
        loss(heads, label).backward()

    return peak_of_training(network, shape, backward)


# What a plan is made for: a GPU with so much memory, or a CPU.

MEMORY_GB = 8.0  # a common GPU, and nnU-Net's
_LEAST_MINUTES = 4.0  # in fewer no patch that is worth it learns anything


@dataclass(frozen=True)
class Machine:
    """Memory in GB (2^30 bytes), whether a GPU does the work, and its minutes where they are counted.

    Raises:
        ValueError: no memory.
    """

    memory_gb: float = MEMORY_GB
    gpu: bool = True
    minutes: float | None = None

    def __post_init__(self) -> None:
        if not self.memory_gb > 0:
            raise ValueError(f"memory is {self.memory_gb:g} GB; more than 0 is needed.")

    @property
    def mixed_precision(self) -> bool:
        """Whether maps take 16 bits."""
        return self.gpu

    @property
    def width(self) -> int:
        """Of the first stage."""
        return 32 if self.gpu else 16

    def widest(self, spatial_dims: int) -> int:
        """Of any stage (on a GPU as nnU-Net has it)."""
        return {2: 512, 3: 320}[spatial_dims] if self.gpu else 128

    @property
    def gmac(self) -> float:
        """Multiply-accumulate operations that a patch may cost forward, in 10^9."""
        return float("inf") if self.gpu else 25.0

    @property
    def patch_gb(self) -> float:
        """That the maps of a patch may take, in 2^30 bytes, so that some hundred steps fit into a CPU's minutes.

        Forward and back, one of these took 2 to 3 s of a core with AMX in bfloat16 (UNet 3+ in training).
        """
        return float("inf") if self.gpu or self.minutes is None else max(self.minutes, _LEAST_MINUTES) / 16

    @property
    def step_gmac(self) -> float:
        """Up to which small patches make one step forward, in 10^9: fewer leave a CPU waiting between operations."""
        return float("inf") if self.gpu else 4.0

    def excess(self, cost: StepCost, batch_size: int) -> float:
        """What a step takes of memory or work, over what is there: 1 or less fits."""
        free = self.memory_gb * USABLE * 2**30 - cost.weight_bytes
        memory = batch_size * cost.patch_bytes / free if free > 0 else float("inf")
        return max(memory, cost.macs / (1e9 * self.gmac), cost.patch_bytes / (2**30 * self.patch_gb))

    def decision(self, *, asked: bool) -> Decision:
        """This as a decision; `asked` says whether the memory was given."""
        kind = "a GPU" if self.gpu else "a CPU"
        reason = (
            "as asked for." if asked else f"{MEMORY_GB:g} GB are taken where nothing is said: give --memory for more."
        )
        if not self.gpu:
            reason += " On a CPU widths are halved; plan with --device cuda for a machine with a GPU."
        return Decision("machine", f"{kind} with {self.memory_gb:g} GB", reason)
