"""Small members of the family for tests, by name: what the registry walks share."""

from typing import Any

import torch
from torch import Tensor, nn

from monai_unetfamily.nets import MEMBERS, GuidedOutput, create_network

SIZES = {2: [(16, 16), (13, 19), (9, 24)], 3: [(8, 8, 16), (9, 11, 17), (12, 8, 24)]}
SMALL: dict[str, Any] = {"features": (4, 8, 8, 8), "in_channels": 2, "out_channels": 3}
WHERE_IT_EXISTS = {"skip_channels": 4, "mode": "fast", "dropout": 0.0}


def small(name: str, dims: int, **options: Any) -> nn.Module:
    """A member of a few thousand weights, the same at every call."""
    torch.manual_seed(0)
    extra = {key: value for key, value in WHERE_IT_EXISTS.items() if key in MEMBERS[name].options}
    return create_network(name, spatial_dims=dims, **SMALL | extra | options)


def heads_of(output: Any) -> list[Tensor]:
    """Whatever a network returned while it trains, as a list of logits."""
    logits = output.logits if isinstance(output, GuidedOutput) else output
    return logits if isinstance(logits, list) else [logits]


def parameters_of(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())
