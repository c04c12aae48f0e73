"""What a step of training costs, measured on the network itself.

Counted on meta tensors, which have sizes and no values: forward pass, loss and backward pass of one patch, as mixed
precision keeps them (maps in 16 bits, logits and loss in 32) or in float32. Weights, their gradients, both moments of
AdamW and the 16-bit copy come on top. What a driver, a convolution's working space and the allocator take is not
counted: `USABLE` leaves a fifth for them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from monai.losses import DiceCELoss, DiceFocalLoss
from torch import Tensor, nn

from monai_unetfamily.losses import WeightedHeadsLoss
from monai_unetfamily.nets import create_network
from monai_unetfamily.nets.blocks import Axes
from monai_unetfamily.nets.profiling import count_macs, peak_of_training

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
