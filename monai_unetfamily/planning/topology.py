"""Choose the network: family member, stages, kernels, widths and loss."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from monai_unetfamily.nets import MEMBERS, list_networks
from monai_unetfamily.nets.layers import Axes
from monai_unetfamily.planning.decisions import Decision
from monai_unetfamily.planning.fingerprint import Fingerprint
from monai_unetfamily.planning.memory import Machine, Network
from monai_unetfamily.planning.target_grid import Grid

# Stages of a network for a patch: how often each axis is halved, and the kernels.
#
# As in nnU-Net (Isensee et al., Nature Methods 18, 2021, online methods): an axis is halved while its spacing is
# within a factor of 2 of the finest one that can still be halved, and while it keeps 4 voxels or more; across slices
# the kernel is 1 until the spacings are that close. Deviation: no more stages than the papers of this family have.


LEAST = 4  # voxels of the deepest grid along a halved axis
_CLOSE = 2  # ratio of spacings under which axes are alike


@dataclass(frozen=True)
class Stages:
    """Strides between the stages and kernels of each, finest stage first."""

    strides: tuple[Axes, ...]
    kernels: tuple[Axes, ...]

    @property
    def total(self) -> Axes:
        """Voxels of the image to one of the deepest grid, per axis."""
        return tuple(prod(stride[axis] for stride in self.strides) for axis in range(len(self.kernels[0])))


def plan_stages(patch: Sequence[int], spacing: Sequence[float], most: int) -> Stages:
    """The stages for a patch (voxels) of a spacing (mm), `most` at most.

    >>> stages = plan_stages((64, 64, 16), (0.8, 0.8, 3.0), most=5)
    >>> stages.strides, stages.kernels[:3]
    (((2, 2, 1), (2, 2, 2), (2, 2, 2), (2, 2, 1)), ((3, 3, 1), (3, 3, 3), (3, 3, 3)))
    """
    size, mm, close = list(patch), list(spacing), [False] * len(patch)
    strides: list[Axes] = []
    kernels: list[Axes] = []
    while True:
        close = [was or n < _CLOSE * min(mm) for was, n in zip(close, mm, strict=True)]
        kernels.append(tuple(3 if each else 1 for each in close))
        stride = _stride(size, mm)
        if len(kernels) == most or max(stride) == 1:
            return Stages(tuple(strides), tuple(kernels))
        strides.append(stride)
        size = [n // s for n, s in zip(size, stride, strict=True)]
        mm = [n * s for n, s in zip(mm, stride, strict=True)]


def _stride(size: Sequence[int], mm: Sequence[float]) -> Axes:
    halved = [axis for axis, n in enumerate(size) if n >= 2 * LEAST]
    finest = min((mm[axis] for axis in halved), default=0.0)
    return tuple(2 if axis in halved and mm[axis] < _CLOSE * finest else 1 for axis in range(len(size)))


# Rules for the network: which member of the family, whether with a guide, its widths and its loss.

_CASES = 0.1  # of the cases: a class that so many lack is absent often
_PATCHES = 0.5  # of the patches
MOST_STAGES = {2: 6, 3: 5}
_GUIDED, _UNGUIDED = "unet3plus", "unetplusplus"


@dataclass(frozen=True)
class Choice:
    """A member of the family, with or without a guide, with given widths or those that the machine allows."""

    name: str
    guided: bool
    features: tuple[int, ...] | None


def choose_member(
    fingerprint: Fingerprint,
    absent: Mapping[str, float] | None,
    network: str | None,
    features: Sequence[int] | None,
) -> tuple[Choice, list[Decision]]:
    """The member, whether it is guided, and why.

    Raises:
        ValueError: a network that the family does not have, no widths.
    """
    require_member(network, features)
    matters, found = _absence(fingerprint, absent or {})
    name = network or (_GUIDED if matters else _UNGUIDED)
    guided = matters and "cgm" in MEMBERS[name].options
    chosen = "asked for." if network else "it has the guide." if guided else "every depth of it is trained at once."
    without = f"{found}; {name} has no guide." if matters else f"{found}."
    said = f"{found}; a guide says so before the decoder draws anything there." if guided else without
    decisions = [Decision("network", name, chosen), Decision("guide (CGM)", "yes" if guided else "no", said)]
    return Choice(name, guided, tuple(features) if features is not None else None), decisions


def require_member(network: str | None, features: Sequence[int] | None) -> None:
    """Refuse a network that the family does not have, and widths that no network has.

    Raises:
        ValueError: says which are allowed.
    """
    if features is not None and (not features or min(features) < 1):
        raise ValueError(
            f"features is {tuple(features)}; one width a stage, 1 or more each, is allowed: or leave it out."
        )
    if network not in (None, *list_networks()):
        raise ValueError(f"network {network!r} is unknown; allowed are {', '.join(list_networks())}.")


def _absence(fingerprint: Fingerprint, absent: Mapping[str, float]) -> tuple[bool, str]:
    """Whether classes are absent often enough to matter, and the figures."""
    found = [_most(fingerprint.absent_from_case, "the cases"), _most(absent, "the random patches")]
    matters = found[0][0] >= _CASES or found[1][0] >= _PATCHES
    limits = f"{_CASES:.0%} of the cases or {_PATCHES:.0%} of the patches {'matter' if matters else 'would matter'}"
    return matters, f"{'; '.join(text for _, text in found if text)} ({limits})"


def _most(absent: Mapping[str, float], of: str) -> tuple[float, str]:
    """The class that is absent most often, of those that there are at all: its share, and that in words."""
    share, name = max(((share, name) for name, share in absent.items() if share < 1), default=(0.0, ""))
    if not name:
        return 0.0, ""
    return share, f"{share:.0%} of {of} lack {name!r}" if share else f"all of {of} hold every class"


def build_network(choice: Choice, fingerprint: Fingerprint, grid: Grid, machine: Machine, stages: Stages) -> Network:
    """The chosen member with these stages, for these channels and classes."""
    member = MEMBERS[choice.name]
    defaults = member.arguments(grid.spatial_dims, None, {})
    widths = _widths(choice, len(stages.kernels), grid, machine)
    shape = {"features": widths, "strides": _shortest(stages.strides), "kernel_size": _shortest(stages.kernels)}
    more = {
        "skip_channels": max(1, widths[0] // 2),
        "deep_supervision": True,
        "cgm": choice.guided,
        "exit_when_absent": choice.guided,
        "background": not fingerprint.overlapping,
    }
    wanted = {key: value for key, value in more.items() if key in member.options and value != defaults[key]}
    channels = len(fingerprint.channels) * (2 * grid.neighbours + 1)
    classes = len(fingerprint.classes) + (not fingerprint.overlapping)
    return Network(choice.name, grid.spatial_dims, channels, classes, {**shape, **wanted})


def _widths(choice: Choice, stages: int, grid: Grid, machine: Machine) -> list[int]:
    if choice.features is None:
        return [min(machine.width * 2**i, machine.widest(grid.spatial_dims)) for i in range(stages)]
    given = list(choice.features[:stages])
    return given + given[-1:] * (stages - len(given))


def _shortest(axes: Sequence[Axes]) -> int | list[int | list[int]]:
    """As people write it: one number where all stages and axes are alike, one a stage where its axes are.

    >>> _shortest(((2, 2), (2, 2))), _shortest(((2, 1), (2, 2)))
    (2, [[2, 1], 2])
    """
    stages = [each[0] if len(set(each)) == 1 else list(each) for each in axes]
    first = stages[0] if stages else None
    return first if isinstance(first, int) and all(stage == first for stage in stages) else stages


def width_decision(network: Network, parameters: int, machine: Machine, *, given: bool) -> Decision:
    """The widths as a decision."""
    features = ", ".join(map(str, network.options["features"]))
    kind = "as asked for" if given else f"{machine.width} doubled from stage to stage, at most the last"
    return Decision("widths", features, f"{kind}; {parameters:,} parameters.")


def choose_loss(fingerprint: Fingerprint, absent: Mapping[str, float] | None, guided: bool) -> tuple[bool, Decision]:
    """Whether Dice is taken over the batch, and the loss in words."""
    rare = max((absent or {}).values(), default=0.0)
    batch_dice = rare >= _PATCHES
    kind = "Dice and binary cross-entropy" if fingerprint.overlapping else "Dice and cross-entropy"
    value = f"{kind} on every head{', and the presence of each class' if guided else ''}"
    how = (
        f"Dice over the whole batch: {rare:.0%} of random patches lack a class, whose own Dice would say nothing."
        if batch_dice
        else "Dice patch by patch: most patches hold all classes."
        if absent
        else "Dice patch by patch."
    )
    return batch_dice, Decision("loss", value, how)
