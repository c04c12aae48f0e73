"""Patch and batch: as much of the image as memory and time allow.

As in nnU-Net (Isensee et al., Nature Methods 18, 2021, online methods): the patch begins as the median image, or a cube
in mm where that is smaller, and loses along its relatively longest axis until batches of two fit; what memory is left
goes to the batch, up to a twentieth of the data set's voxels. Deviations: memory is measured on the network (`memory`);
where pairs fit only of patches with little context, patches come alone and the gradients of two are summed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil, inf, prod

from monai_unetfamily.nets.layers import Axes
from monai_unetfamily.planning.decisions import Decision, by
from monai_unetfamily.planning.memory import USABLE, Machine, Network, StepCost, measure_step
from monai_unetfamily.planning.target_grid import Grid
from monai_unetfamily.planning.topology import LEAST, Stages, plan_stages

_CUBE = {2: 2048**2, 3: 256**3}  # voxels of the first patch at most (nnU-Net)
_WORTH = {2: 128**2, 3: 64**3}  # voxels that a patch keeps, before its step is made of single patches
_PAIR = 2  # patches a step at least
_MOST = 16  # patches a step at most
_SHARE = 0.05  # of the data set's voxels in a step at most (nnU-Net)


@dataclass(frozen=True)
class Patches:
    """A patch, its network's stages, the batch, and what a step costs."""

    size: Axes
    stages: Stages
    network: Network
    cost: StepCost
    batch_size: int = _PAIR
    accumulation: int = 1


Build = Callable[[Stages], Network]


def choose_patches(
    grid: Grid, build: Build, machine: Machine, cases: int, most_stages: int
) -> tuple[Patches, list[Decision]]:
    """Patch and batch for a grid, with the network that `build` makes for its stages.

    Raises:
        ValueError: not even the smallest patch fits into the memory.
    """
    first = _first_patch(grid, most_stages)
    patches = _shrunk(first, grid, build, machine, most_stages, batch=_PAIR)
    if patches is None:
        patches = _shrunk(first, grid, build, machine, most_stages, batch=1)
        if patches is None:
            raise ValueError(
                f"memory is {machine.memory_gb:g} GB; the network's smallest patch does not fit: give more (--memory), "
                "or a smaller network."
            )
        patches = replace(patches, batch_size=1, accumulation=_PAIR)
    else:
        patches = replace(patches, batch_size=_batch_size(patches, grid, machine, cases))
    return patches, _decisions(patches, grid, machine, cases)


def _first_patch(grid: Grid, most: int) -> Axes:
    per_mm = [1 / mm for mm in grid.mm]
    edge = (_CUBE[grid.spatial_dims] / prod(per_mm)) ** (1 / grid.spatial_dims)
    cube = [max(1, round(edge * each)) for each in per_mm]
    return _whole([min(c, n) for c, n in zip(cube, grid.size, strict=True)], grid, most)


def _whole(patch: Sequence[int], grid: Grid, most: int) -> Axes:
    """The patch made up to whole voxels of the deepest grid."""
    total = plan_stages(patch, grid.mm, most).total
    return tuple(ceil(n / t) * t for n, t in zip(patch, total, strict=True))


def _shrunk(patch: Axes, grid: Grid, build: Build, machine: Machine, most: int, batch: int) -> Patches | None:
    """The first patch that fits, each a step smaller than the one before; None where none does.

    Cost grows in proportion to the voxels, so that patches which cannot fit by the last measurement are passed by.
    """
    least = min(_WORTH[grid.spatial_dims], prod(grid.size)) if batch > 1 and machine.gpu else 0
    while prod(patch) >= least:
        stages = plan_stages(patch, grid.mm, most)
        network = build(stages)
        cost = measure_step(network, patch, mixed_precision=machine.mixed_precision)
        excess = machine.excess(cost, batch)
        if excess <= 1:
            return Patches(patch, stages, network, cost)
        target = prod(patch) / excess
        while prod(patch) > target:
            smaller = _smaller(patch, grid, most)
            if smaller == patch:
                return None
            patch = smaller
    return None


def _smaller(patch: Axes, grid: Grid, most: int) -> Axes:
    """One step of the deepest grid less along the axis that has most of the image; the same where no axis can."""
    stages = plan_stages(patch, grid.mm, most)
    divisible = [axis for axis, t in enumerate(stages.total) if patch[axis] - t >= max(t, 2 * LEAST)]
    if not divisible:
        return patch
    axis = max(divisible, key=lambda a: (patch[a] / grid.size[a], patch[a], a))
    return _whole([n - stages.total[axis] * (a == axis) for a, n in enumerate(patch)], grid, most)


def _batch_size(patches: Patches, grid: Grid, machine: Machine, cases: int) -> int:
    fitting = next(n for n in range(_MOST, 0, -1) if n == _PAIR or machine.excess(patches.cost, n) <= 1)
    share = round(_SHARE * _voxels(grid, cases) / prod(patches.size))
    together = machine.step_gmac * 1e9 / patches.cost.macs
    return max(_PAIR, int(min(fitting, share, together)))


def _voxels(grid: Grid, cases: int) -> int:
    return prod(grid.size) * grid.slices * cases


def _decisions(patches: Patches, grid: Grid, machine: Machine, cases: int) -> list[Decision]:
    stages = patches.stages
    deepest = [n // t for n, t in zip(patches.size, stages.total, strict=True)]
    halved = (
        f"an axis is halved while its spacing is within a factor of 2 of the finest and {LEAST} voxels are left; the "
        f"deepest grid is {by(deepest)}."
    )
    close = "1 along an axis until its spacing is within a factor of 2 of the finest."
    return [
        Decision("patch", by(patches.size), _why_patch(patches, grid, machine)),
        Decision("batch", _batch(patches), _why_batch(patches, grid, machine, cases)),
        Decision("stages", f"{len(stages.kernels)}, strides {_spelled(stages.strides)}", halved),
        Decision("kernels", _spelled(stages.kernels), close),
    ]


def _batch(patches: Patches) -> str:
    summed = f", gradients of {patches.accumulation} steps summed" if patches.accumulation > 1 else ""
    return f"{patches.batch_size}{summed}"


def _why_patch(patches: Patches, grid: Grid, machine: Machine) -> str:
    covered = prod(map(min, patches.size, grid.size)) / prod(grid.size)
    unit = "mm" if grid.spacing else "pixels"
    cost = f"{patches.cost.patch_bytes / 2**30:.2g} GiB and {patches.cost.macs / 1e9:.3g} GMAC forward"
    limit = (
        f"; {machine.minutes:g} minutes of a CPU leave it {machine.patch_gb:.2g} GiB" if machine.patch_gb < inf else ""
    )
    return (
        f"the median image is {by(grid.size)} voxels of {by(grid.mm)} {unit}, of which it covers {covered:.0%}; one "
        f"patch takes {cost}, measured on the network{limit}."
    )


def _why_batch(patches: Patches, grid: Grid, machine: Machine, cases: int) -> str:
    step = f"{patches.cost.bytes(patches.batch_size) / 2**30:.2g} GiB"
    precision = "mixed precision" if machine.mixed_precision else "float32"
    limit = f"{machine.memory_gb * USABLE:.3g} of {machine.memory_gb:g} GB"
    share = _SHARE * _voxels(grid, cases) / prod(patches.size)
    quick = "" if machine.gpu else f"; on a CPU small ones come together up to {machine.step_gmac:g} GMAC forward"
    return (
        f"a step takes {step} in {precision}, weights and optimizer included, where {limit} may be used (the rest is "
        f"for driver, working space and allocator); {_SHARE:.0%} of all voxels are {share:.2g} patches{quick}."
    )


def _spelled(axes: Sequence[Axes]) -> str:
    """Numbers of stages, those that are alike along all axes as one.

    >>> _spelled([(2, 2, 1), (2, 2, 2)])
    '2x2x1, 2'
    """
    return ", ".join(str(each[0]) if len(set(each)) == 1 else "x".join(map(str, each)) for each in axes) or "none"
