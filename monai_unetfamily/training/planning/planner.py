"""From a data set to its bundle: checked, measured, decided, written."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from monai_unetfamily.inference.device import choose_device
from monai_unetfamily.training.planning.absence import absence_from_patches
from monai_unetfamily.training.planning.bundle import write_bundle
from monai_unetfamily.training.planning.decisions import format_decisions
from monai_unetfamily.training.planning.fingerprint import Fingerprint, format_fingerprint
from monai_unetfamily.training.planning.integrity import check_integrity
from monai_unetfamily.training.planning.members import require_member
from monai_unetfamily.training.planning.plan import Plan
from monai_unetfamily.training.planning.problems import format_problems
from monai_unetfamily.training.planning.rules import make_plan
from monai_unetfamily.volumes.cases import load_cases, read_facts
from monai_unetfamily.volumes.files import require_free

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
