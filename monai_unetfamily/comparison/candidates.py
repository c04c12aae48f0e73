"""Who is compared: the family, U-Nets of each depth, and four of MONAI's networks, as equal as their arguments let.

Equal are widths, strides, kernels, norm and activation: those of the network that the data set was planned with. What a
network cannot follow is named (`Candidate.difference`), and stands in the report.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from monai_unetfamily.comparison.study_results import Kind
from monai_unetfamily.nets import MEMBERS, list_networks, per_stage

ALL = "all"
_EQUAL = ("spatial_dims", "in_channels", "out_channels", "features", "strides", "kernel_size", "act", "norm")
_ACT = ["leakyrelu", {"inplace": True, "negative_slope": 0.01}]
_NORM = ["instance", {"affine": True}]
_BASIC_STAGES = 5
_SEGRES_BLOCKS = (1, 2, 2, 4, 4)  # MONAI's Auto3DSeg
_FAMILY_NOTES = {
    "fcn": "no decoder of convolutions: scores are upsampled and added; dropout before them",
    "unet_e": "deep supervision: a head at every level",
    "unet_plus": "deep supervision: a head at every level",
    "unetplusplus": "deep supervision: a head at every level",
    "unet3plus": "deep supervision at every scale; every skip has {skip} channels",
}
_GUIDED = "; a guide (CGM), trained with a loss of its own"
_FIVE = f"always {_BASIC_STAGES} stages of stride 2 and kernels of 3"


@dataclass(frozen=True)
class Candidate:
    """A network to be trained: `definition` is what a bundle's metadata says of it, with `_target_`.

    `difference` names how it departs from what is equal for all; nothing where it does not.
    """

    name: str
    kind: Kind
    definition: Mapping[str, Any]
    difference: str = ""


def choose_candidates(base: Mapping[str, Any], names: Sequence[str] = (ALL,)) -> list[Candidate]:
    """The candidates of these names, in the order of the family.

    Args:
        base: the definition of the network whose widths and channels the others take.
        names: of `list_candidates`; "all" for all of them.

    Raises:
        ValueError: a name that is none.

    >>> base = {"spatial_dims": 2, "in_channels": 1, "out_channels": 3, "features": [8, 16, 32]}
    >>> [candidate.name for candidate in choose_candidates(base, ["unet", "unet_l1"])]
    ['unet_l1', 'unet']
    """
    found = {candidate.name: candidate for candidate in list_candidates(base)}
    if unknown := sorted(set(names) - {ALL, *found}):
        raise ValueError(f"networks {unknown} are unknown; allowed are {ALL} or some of {', '.join(found)}.")
    return [candidate for name, candidate in found.items() if ALL in names or name in names]


def list_candidates(base: Mapping[str, Any]) -> list[Candidate]:
    """All that can be compared where the data set was planned with the network `base`.

    >>> base = {"spatial_dims": 2, "in_channels": 1, "out_channels": 3, "features": [8, 16, 32]}
    >>> " ".join(candidate.name for candidate in list_candidates(base))[:50]
    'fcn32s fcn16s fcn8s unet_l1 unet unet_e unet_plus '
    """
    equal = {"act": _ACT, "norm": _NORM, "strides": 2, "kernel_size": 3} | {k: base[k] for k in _EQUAL if k in base}
    background = {"background": base["background"]} if "background" in base else {}
    family: list[Candidate] = []
    for name in list_networks():
        if name == "unet":
            family += _shallow(equal)
        family.append(_member(name, equal, background))
    guide = {"cgm": True, "exit_when_absent": True}
    return [*family, _member("unet3plus", equal, background | guide, "_cgm"), *_references(equal)]


def _member(name: str, equal: Mapping[str, Any], more: Mapping[str, Any], suffix: str = "") -> Candidate:
    options, skip = MEMBERS[name].options, equal["features"][0]
    supervised = {"deep_supervision": True} if name in _FAMILY_NOTES else {}
    wanted = {**equal, **supervised, "skip_channels": skip, **more}
    taken = {key: value for key, value in wanted.items() if key in (*_EQUAL[:3], *options)}
    note = _FAMILY_NOTES.get("fcn" if name.startswith("fcn") else name, "").format(skip=skip)
    definition = {"_target_": "monai_unetfamily.nets.create_network", "name": name, **taken}
    return Candidate(name + suffix, "family", definition, note + _GUIDED * bool(suffix))


def _shallow(equal: Mapping[str, Any]) -> list[Candidate]:
    """U-Nets of 1, 2, ... levels below the first, each as wide as the whole one there; the whole one is "unet"."""
    features = equal["features"]
    strides, kernels = _stages(equal)
    return [
        Candidate(
            f"unet_l{level}",
            "depth",
            {
                **_member("unet", equal, {}).definition,
                "features": features[: level + 1],
                "strides": strides[:level],
                "kernel_size": kernels[: level + 1],
            },
            f"{level} of {len(features) - 1} levels",
        )
        for level in range(1, len(features) - 1)
    ]


def _stages(equal: Mapping[str, Any]) -> tuple[list[list[int]], list[list[int]]]:
    """Strides between the stages and kernels of each, per axis."""
    dims, count = equal["spatial_dims"], len(equal["features"])
    strides = per_stage(equal["strides"], count - 1, dims, "strides")
    kernels = per_stage(equal["kernel_size"], count, dims, "kernel_size")
    return [list(stride) for stride in strides], [list(kernel) for kernel in kernels]


def _references(equal: Mapping[str, Any]) -> list[Candidate]:
    dims, widths = equal["spatial_dims"], list(equal["features"])
    channels = {key: equal[key] for key in _EQUAL[:3]}
    layers = {"act": equal["act"], "norm": equal["norm"]}
    strides, kernels = _stages(equal)
    five = (widths + widths[-1:] * _BASIC_STAGES)[:_BASIC_STAGES]
    basic = {**channels, "features": [*five, widths[0]], **layers}
    dyn = {
        **channels,
        "kernel_size": kernels,
        "strides": [[1] * dims, *strides],
        "upsample_kernel_size": strides,
        "filters": widths,
        "norm_name": equal["norm"],
        "act_name": equal["act"],
    }
    halvings = min(sum(stride[axis] > 1 for stride in strides) for axis in range(dims))  # it halves all axes alike
    segres = {
        **channels,
        "init_filters": widths[0],
        "blocks_down": [*_SEGRES_BLOCKS, *[_SEGRES_BLOCKS[-1]] * halvings][: halvings + 1],
        "blocks_up": [1] * halvings,
        **layers,
    }
    below = "its decoders have the kernels of the stage below" if any(k != kernels[0] for k in kernels) else ""
    doubled = (
        "residual blocks of its own number; widths double at every stage, of stride 2 and kernels of 3; upsampling"
        " without weights"
    )
    fewer = f"; {halvings + 1} of {len(widths)} stages: an axis of the patch is halved no more often"
    return [
        _reference("basic_unet", "BasicUNet", basic, f"{_FIVE}; the first upsampling keeps its width"),
        _reference("basic_unetplusplus", "BasicUNetPlusPlus", basic, f"{_FIVE}; three heads that nothing trains"),
        _reference("dynunet", "DynUNet", dyn, below),
        _reference("segresnet", "SegResNet", segres, doubled + fewer * (halvings + 1 < len(widths))),
    ]


def _reference(module: str, name: str, arguments: Mapping[str, Any], difference: str) -> Candidate:
    target = f"monai.networks.nets.{module}.{name}"
    return Candidate(name, "reference", {"_target_": target, **arguments}, difference)
