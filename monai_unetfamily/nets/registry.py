"""One table of the family: name -> class, the paper's fixed choices, and what its preset leaves open."""

from collections.abc import Mapping
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any

from torch import nn

from monai_unetfamily.nets.unet3plus import UNet3Plus
from monai_unetfamily.nets.unetplusplus import UNetPlusPlus

_OPEN = ("features", "deep_supervision", "skip_channels")  # what preset="paper" leaves to the caller


@dataclass(frozen=True)
class Member:
    """A member of the family: its class, and the arguments that make it the paper's network."""

    network: type[nn.Module]
    paper: Mapping[str, Any]

    @property
    def options(self) -> list[str]:
        """Names of the keyword options that the class takes."""
        parameters = signature(self.network).parameters.values()
        return [p.name for p in parameters if p.kind is Parameter.KEYWORD_ONLY]


MEMBERS: dict[str, Member] = {
    "unetplusplus": Member(UNetPlusPlus, {"act": "relu", "norm": None, "upsample": "transposed"}),
    "unet3plus": Member(UNet3Plus, {"act": "relu", "norm": "batch"}),
}


def list_networks() -> list[str]:
    """Names that `create_network` knows.

    >>> list_networks()
    ['unetplusplus', 'unet3plus']
    """
    return list(MEMBERS)


def create_network(
    name: str,
    *,
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    preset: str | None = None,
    **options: Any,
) -> nn.Module:
    """Make a member of the family.

    Args:
        name: one of `list_networks()`.
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: classes, the background included where there is one.
        preset: "paper" fixes layers, norm, biases, strides, kernels and upsampling as in the paper, and leaves
            `features`, `deep_supervision` and `skip_channels` to the caller.
        options: as the member's class documents them.

    Raises:
        ValueError: for a name, preset or option that does not exist; the message lists those that do.

    >>> net = create_network("unet3plus", spatial_dims=2, in_channels=3, out_channels=1, preset="paper")
    >>> sum(p.numel() for p in net.parameters())
    26971777
    """
    if name not in MEMBERS:
        raise ValueError(f"network {name!r} is unknown; allowed are {', '.join(MEMBERS)}.")
    member = MEMBERS[name]
    _check_options(name, options, member.options)
    if preset is not None:
        _check_preset(preset, options)
        options = {**member.paper, **options}
    return member.network(spatial_dims, in_channels, out_channels, **options)


def _check_options(name: str, options: Mapping[str, Any], allowed: list[str]) -> None:
    unknown = sorted(set(options) - set(allowed))
    if unknown:
        raise ValueError(f"{name} has no option {', '.join(unknown)}; allowed are {', '.join(allowed)}.")


def _check_preset(preset: str, options: Mapping[str, Any]) -> None:
    if preset != "paper":
        raise ValueError(f"preset is {preset!r}; allowed is 'paper', or none.")
    fixed = sorted(set(options) - set(_OPEN))
    if fixed:
        raise ValueError(
            f"preset 'paper' fixes {', '.join(fixed)}; it leaves {', '.join(_OPEN)}: drop the option or the preset."
        )
