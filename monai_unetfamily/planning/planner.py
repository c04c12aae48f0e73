"""Plan a bundle for a data set: verify, measure, decide, write."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import ceil, inf, prod
from pathlib import Path

from monai_unetfamily.data import load_cases, read_facts
from monai_unetfamily.io import require_free
from monai_unetfamily.planning.bundle_files import write_bundle
from monai_unetfamily.planning.dataset_checks import check_integrity, format_problems
from monai_unetfamily.planning.decisions import Decision, format_decisions
from monai_unetfamily.planning.fingerprint import Fingerprint, absence_from_patches, format_fingerprint
from monai_unetfamily.planning.intensity import choose_augmentation, choose_mirror_axes, choose_sampling, choose_scaling
from monai_unetfamily.planning.memory import MEMORY_GB, Machine, Network
from monai_unetfamily.planning.patch_size import Patches, choose_patches
from monai_unetfamily.planning.plan import Plan, Schedule, Window
from monai_unetfamily.planning.target_grid import Grid, choose_grid
from monai_unetfamily.planning.topology import (
    MOST_STAGES,
    Stages,
    build_network,
    choose_loss,
    choose_member,
    require_member,
    width_decision,
)
from monai_unetfamily.prediction import choose_device

# From the facts of a data set to a plan for its bundle: deterministic, and each decision with its reason.
#
# The order of decisions is nnU-Net's (Isensee et al., Nature Methods 18, 2021): what it calls a fingerprint is given,
# spacing and dimensions follow from it, patch and stages from these and from the memory, the batch from what is left.


_LEARNING_RATE = 0.002
_WATCHED = 12  # validation cases at most
_SHORT = 30  # minutes on a CPU in which long epochs would be few
_MOSTLY = 0.9  # of the median image


def make_plan(
    fingerprint: Fingerprint,
    *,
    network: str | None = None,
    memory_gb: float | None = None,
    minutes: float | None = None,
    spatial_dims: int | None = None,
    features: Sequence[int] | None = None,
    hu: tuple[float, float] | None = None,
    gpu: bool = True,
    absent: Mapping[str, float] | None = None,
) -> Plan:
    """Decide everything that a bundle for this data set needs to know.

    Args:
        fingerprint: the facts.
        network: a member of the family in place of the one that the rules take.
        memory_gb: of the GPU (or of the CPU's share), in 2^30 bytes; 8 where it is not given.
        minutes: of training; otherwise epochs rule.
        spatial_dims: 2 or 3 in place of what the rules take; 2 on volumes is slices with their neighbours.
        features: widths of the stages, finest first; for fewer stages the first ones, for more the last one again.
        hu: limits to which values are clipped, in Hounsfield units, in place of what the rules take: the images are CT.
        gpu: whether a GPU will train.
        absent: class -> share of random patches without it, 0 to 1; without it cases alone decide about a guide.

    Raises:
        ValueError: what cannot be planned, with what is allowed.
    """
    machine = Machine(MEMORY_GB if memory_gb is None else memory_gb, gpu, minutes)
    grid, dimensions = choose_grid(fingerprint, spatial_dims)
    choice, members = choose_member(fingerprint, absent, network, features)

    def build(stages: Stages) -> Network:
        return build_network(choice, fingerprint, grid, machine, stages)

    patches, sizes = choose_patches(grid, build, machine, len(fingerprint.cases), MOST_STAGES[grid.spatial_dims])
    width = width_decision(patches.network, patches.cost.parameters, machine, given=features is not None)
    scaling, intensity = choose_scaling(fingerprint, hu)
    balanced, sampling = choose_sampling(patches, grid, fingerprint)
    augmentation, changes = choose_augmentation(grid, scaling)
    mirror_axes, mirroring = choose_mirror_axes(fingerprint, grid)
    batch_dice, loss = choose_loss(fingerprint, absent, choice.guided)
    window, sliding = _choose_window(patches, grid)
    schedule, times = _choose_schedule(fingerprint, machine, minutes)
    asked = machine.decision(asked=memory_gb is not None)
    appearance = [intensity, sampling, changes, mirroring]
    return Plan(
        network=patches.network,
        slice_axis=grid.slice_axis,
        neighbours=grid.neighbours,
        spacing=grid.spacing,
        patch=patches.size,
        batch_size=patches.batch_size,
        accumulation=patches.accumulation,
        scaling=scaling,
        augmentation=augmentation,
        balanced=balanced,
        mirror_axes=mirror_axes,
        batch_dice=batch_dice,
        window=window,
        schedule=schedule,
        decisions=(asked, *dimensions, *members, *sizes, width, *appearance, loss, *times, sliding),
    )


def _choose_window(patches: Patches, grid: Grid) -> tuple[Window, Decision]:
    covered = prod(min(n, size) for n, size in zip(patches.size, grid.size, strict=True)) / prod(grid.size)
    overlap, reason = (
        (0.25, "a window covers most of the median image.")
        if covered >= _MOSTLY
        else (0.5, f"a window covers {covered:.0%} of the median image, and its edges see least.")
    )
    return Window(patches.size, overlap), Decision("window", f"the patch, overlapping by {overlap:.0%}", reason)


def _choose_schedule(
    fingerprint: Fingerprint, machine: Machine, minutes: float | None
) -> tuple[Schedule, list[Decision]]:
    if minutes is not None and not 0 < minutes < inf:
        raise ValueError(f"minutes is {minutes:g}; more than 0 is needed.")
    validation = ceil(len(fingerprint.cases) / 5)
    epochs, batches, interval = (300, 250, 5) if machine.gpu else (100, 100, 2)
    if short := not machine.gpu and minutes is not None and minutes <= _SHORT:
        epochs, batches, interval = 4 * epochs, batches // 4, 4 * interval
    schedule = Schedule(_LEARNING_RATE, epochs, batches, minutes, interval, min(_WATCHED, validation))
    length = (
        f"{minutes:g} minutes (`unetfamily train`); {epochs} epochs of {batches} steps by MONAI alone"
        if minutes
        else f"{epochs} epochs of {batches} steps"
    )
    falling = "with the time left" if minutes else "with the epochs left"
    fall = f"it falls {falling} by a polynomial of power 0.9 (nnU-Net), and instance norm bears a large first step."
    return schedule, [
        Decision("optimizer", f"AdamW, learning rate {_LEARNING_RATE:g}", fall),
        Decision("schedule", length, _why_so_long(minutes, short)),
        Decision(
            "validation",
            f"every {interval} epochs, cases watched: {schedule.val_cases}",
            f"a fifth of {len(fingerprint.cases)} cases is held out without a split; at most {_WATCHED} of them "
            "are watched.",
        ),
    ]


def _why_so_long(minutes: float | None, short: bool) -> str:
    if minutes is None:
        return "change max_epochs, or give --minutes."
    return "as asked for; epochs are short, for the last one has to fit into the time." if short else "as asked for."


# From a data set to its bundle: checked, measured, decided, written.

_LOGGER = logging.getLogger(__name__)


def plan_dataset(
    dataset: Path,
    output: Path,
    *,
    network: str | None = None,
    memory_gb: float | None = None,
    minutes: float | None = None,
    spatial_dims: int | None = None,
    features: Sequence[int] | None = None,
    hu: tuple[float, float] | None = None,
    device: str = "auto",
    log: Callable[[str], None] = _LOGGER.info,
) -> Plan:
    """Plan a bundle for a data set in MSD's or nnU-Net's layout or in paired folders, and write it.

    Args:
        dataset: its folder; it is checked first, and every finding is logged in one table.
        output: new folder for the bundle.
        network, memory_gb, minutes, spatial_dims, features, hu: as `make_plan` takes them.
        device: that will train: "auto" for the best of this machine, "cpu", "cuda", "mps".
        log: is given the findings, the fingerprint and the decisions.

    Raises:
        FileNotFoundError, FileExistsError: no data set, or a folder that is not empty.
        ValueError: a data set with errors, or what cannot be planned; then nothing is written.
    """
    require_free(output)
    require_member(network, features)
    gpu = device.startswith("cuda") or choose_device(device).type != "cpu"  # a plan for another machine's GPU is fine
    fingerprint = sound_fingerprint(dataset, log)
    log(f"{format_fingerprint(fingerprint)}\n")
    decide = partial(
        make_plan,
        fingerprint,
        network=network,
        memory_gb=memory_gb,
        minutes=minutes,
        spatial_dims=spatial_dims,
        features=features,
        hu=hu,
        gpu=gpu,
    )
    plan = decide(absent=_absent(dataset, fingerprint, decide()))
    write_bundle(plan, fingerprint, output, read_facts(dataset))
    log(format_decisions(plan.decisions))
    return plan


def sound_fingerprint(dataset: Path, log: Callable[[str], None]) -> Fingerprint:
    """The fingerprint of a data set without errors; warnings are logged.

    Raises:
        ValueError: errors, which have been logged with the warnings.
    """
    problems, fingerprint = check_integrity(dataset)
    if problems:
        log(f"{format_problems(problems)}\n")
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors:
        number = f"{len(errors)} error{'s' * (len(errors) > 1)}"
        raise ValueError(
            f"{dataset}: has {number}, the first in {errors[0].file.name} ({errors[0].what}); mend what the table "
            "names, then plan again."
        )
    if fingerprint is None:
        raise ValueError(f"{dataset}: has no case with a class; labelled cases are needed, add them.")
    return fingerprint


def _absent(dataset: Path, fingerprint: Fingerprint, plan: Plan) -> dict[str, float]:
    """Class -> share of the plan's patches without it; of slices, the middle one counts."""
    patch = list(plan.patch)
    if plan.slice_axis is not None:
        patch.insert(plan.slice_axis, 1)
    stored = fingerprint.spacing()
    spacing = [wanted or mm for wanted, mm in zip(plan.spacing or stored, stored, strict=True)]
    return absence_from_patches(load_cases(dataset, fold="all"), fingerprint.labels, patch, spacing)
