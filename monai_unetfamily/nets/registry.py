"""One table of the family: a name, its class and arguments, the paper's choices, and where its nodes are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from inspect import Parameter, signature
from typing import Any

import yaml
from torch import nn

from monai_unetfamily.nets.arguments import per_stage
from monai_unetfamily.nets.fcn import SkipFCN
from monai_unetfamily.nets.layers import Axes
from monai_unetfamily.nets.unet import PlainUNet
from monai_unetfamily.nets.unet3plus import UNet3Plus
from monai_unetfamily.nets.unetplusplus import UNetPlusPlus

# What preset="paper" leaves to the caller. Activation checkpointing changes no figure.
_OPEN = ("features", "deep_supervision", "skip_channels", "mode", "use_checkpoint")


@dataclass(frozen=True)
class Member:
    """A member of the family.

    `nodes` names the attributes that hold its nodes, the blocks that a picture of it shows; `fixed` are the arguments
    that its name stands for, `paper` those that make it the paper's network, with `paper_3d` instead in 3-D.
    """

    network: type[nn.Module]
    nodes: tuple[str, ...]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    paper: Mapping[str, Any] = field(default_factory=dict)
    paper_3d: Mapping[str, Any] = field(default_factory=dict)

    @property
    def options(self) -> list[str]:
        """Names of the keyword options that it takes."""
        parameters = signature(self.network).parameters.values()
        return [p.name for p in parameters if p.kind is Parameter.KEYWORD_ONLY and p.name not in self.fixed]

    def preset(self, spatial_dims: int) -> dict[str, Any]:
        """The arguments of preset="paper"."""
        return {**self.paper, **(self.paper_3d if spatial_dims == 3 else {})}

    def arguments(self, spatial_dims: int, preset: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
        """Every keyword argument of the network that `create_network` makes of a preset and options."""
        parameters = signature(self.network).parameters.values()
        defaults = {p.name: p.default for p in parameters if p.kind is Parameter.KEYWORD_ONLY}
        return {**defaults, **self.fixed, **(self.preset(spatial_dims) if preset else {}), **options}

    def strides(self, spatial_dims: int, preset: str | None, options: Mapping[str, Any]) -> list[Axes]:
        """Voxels of each stage's grid to one of the next coarser grid, per axis."""
        arguments = self.arguments(spatial_dims, preset, options)
        return per_stage(arguments["strides"], len(arguments["features"]) - 1, spatial_dims, "strides")


_VGG: dict[str, Any] = {
    "paper": {
        "features": (64, 128, 256, 512, 512, 4096),
        "kernel_size": (3, 3, 3, 3, 3, 7),
        "convolutions": (2, 2, 3, 3, 3),
        "act": "relu",
        "norm": None,
    },
    "paper_3d": {"features": (64, 128, 256, 512, 512, 512), "kernel_size": 3},
}
_RELU: dict[str, Any] = {"paper": {"act": "relu", "norm": None, "upsample": "transposed"}}

MEMBERS: dict[str, Member] = {
    "fcn32s": Member(SkipFCN, ("En", "S"), {"skips": 0}, **_VGG),
    "fcn16s": Member(SkipFCN, ("En", "S"), {"skips": 1}, **_VGG),
    "fcn8s": Member(SkipFCN, ("En", "S"), {"skips": 2}, **_VGG),
    "unet": Member(PlainUNet, ("En", "De"), **_RELU),
    "unet_e": Member(UNetPlusPlus, ("X",), {"joined": "none"}, **_RELU),
    "unet_plus": Member(UNetPlusPlus, ("X",), {"joined": "neighbours"}, **_RELU),
    "unetplusplus": Member(UNetPlusPlus, ("X",), {"joined": "all"}, **_RELU),
    "unet3plus": Member(UNet3Plus, ("En", "De"), paper={"act": "relu", "norm": "batch", "encoder": "plain"}),
}


def list_networks() -> list[str]:
    """Names that `create_network` knows.

    >>> list_networks()
    ['fcn32s', 'fcn16s', 'fcn8s', 'unet', 'unet_e', 'unet_plus', 'unetplusplus', 'unet3plus']
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
            `features`, `skip_channels`, `deep_supervision`, `mode` and `use_checkpoint` to the caller.
        options: as the member's class documents them, less what the name stands for (`skips`, `joined`).

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
        _check_preset(name, preset, spatial_dims, options)
    return member.network(spatial_dims, in_channels, out_channels, **member.arguments(spatial_dims, preset, options))


def read_options(texts: Sequence[str]) -> dict[str, Any]:
    """Options of `create_network` from texts OPTION=VALUE, each value as YAML.

    >>> read_options(["features=[16, 32]", "deep_supervision=true"])
    {'features': [16, 32], 'deep_supervision': True}

    Raises:
        ValueError: for a text that is none, or an option that no network has.
    """
    options = {}
    allowed = sorted({option for member in MEMBERS.values() for option in member.options})
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in allowed:
            raise ValueError(f"{text!r} is no option of a network; write OPTION=VALUE, of {', '.join(allowed)}.")
        try:
            options[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f"{text!r} has a value that is no YAML; write it as in features=[16,32].") from error
    return options


def _check_options(name: str, options: Mapping[str, Any], allowed: list[str]) -> None:
    unknown = sorted(set(options) - set(allowed))
    if unknown:
        raise ValueError(f"{name} has no option {', '.join(unknown)}; allowed are {', '.join(allowed)}.")


def _check_preset(name: str, preset: str, spatial_dims: int, options: Mapping[str, Any]) -> None:
    member = MEMBERS[name]
    if preset != "paper" or not member.paper:
        allowed = "'paper', or none" if member.paper else f"none for {name}"
        raise ValueError(f"preset is {preset!r}; allowed is {allowed}.")
    left = [option for option in _OPEN if option in member.options]
    fixed = sorted(set(options) - set(left))
    if fixed:
        raise ValueError(
            f"preset 'paper' fixes {', '.join(fixed)}; it leaves {', '.join(left)}: drop the option or the preset."
        )
    widths, given = member.preset(spatial_dims).get("features", ()), options.get("features", ())
    if widths and given and len(widths) != len(given):
        raise ValueError(
            f"features has {len(given)} entries; preset 'paper' of {name} has {len(widths)} stages of its own: give "
            f"{len(widths)} widths, or drop the preset."
        )
