"""What is held against a request to train, before any time is spent on it."""

from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

from monai_unetfamily.bundles.bundle import label_names
from monai_unetfamily.bundles.checkpoint import CHECKPOINT
from monai_unetfamily.bundles.inputs import check_source
from monai_unetfamily.bundles.metadata import INSTALLED, WEIGHTS, find_weights
from monai_unetfamily.bundles.networks import check_network
from monai_unetfamily.volumes.cases import IGNORE, Section, check_labels, load_cases, read_label_names
from monai_unetfamily.volumes.files import require_free


def check_request(
    bundle: Path,
    output: Path | None,
    network: str | None,
    minutes: float | None,
    resume: bool,
    init_from: Path | None,
) -> None:
    """Refuse a request that would lose something, or that lacks something.

    Raises:
        FileNotFoundError, FileExistsError, ValueError: names the file or the option, and what to do.
    """
    weights, checkpoint = bundle / "models" / WEIGHTS, bundle / "models" / CHECKPOINT
    if minutes is not None and minutes <= 0:
        raise ValueError(f"minutes is {minutes}; more than 0 is needed.")
    if resume and (output or network or init_from):
        raise ValueError("a resumed run keeps its folder, network and weights: resume the trained bundle itself.")
    if resume and not checkpoint.is_file():
        raise FileNotFoundError(f"{checkpoint}: nothing to resume from; train without resuming.")
    if not (resume or output) and weights.exists():
        raise FileExistsError(
            f"{weights}: training would replace these weights; resume it (--resume), or train a copy (-o)."
        )
    if not output and bundle.is_relative_to(INSTALLED):
        raise ValueError(f"{bundle.name}: ships with the installed package, which stays as it is; train a copy (-o).")
    if network:
        check_network(bundle, network)
    if init_from:
        find_weights(init_from)
    if output:
        require_free(output)


def check_dataset(
    bundle: Path,
    dataset: Path,
    log: Callable[[str], None],
    sections: Sequence[Section] = ("training", "validation"),
) -> dict[int, str]:
    """Refuse labels that do not fit their images or the bundle's classes, before any time is spent.

    Returns the names of the labels, id -> name, as the data set and the bundle have them.

    Raises:
        FileNotFoundError, ValueError: names the file, and what to do.
    """
    names = label_names(bundle)
    table = read_label_names(dataset)
    known = {0: "background"} | names
    other = {label: name for label, name in table.items() if known.get(label, "").casefold() != name.casefold()}
    if other:
        raise ValueError(
            f"{dataset}: has labels {other} where this bundle has {names}; choose another bundle, or rename."
        )
    cases = {section: load_cases(dataset, section) for section in sections}
    listed = {label: name for label, name in names.items() if label in table or name != IGNORE}
    if not table:
        log(f"{dataset} names no labels; they are taken for the bundle's: {listed}")
    log(f"checking {' and '.join(f'{len(c)} {section}' for section, c in cases.items())} cases of {dataset}")
    for case in chain.from_iterable(cases.values()):
        check_source(bundle, Path(case["image"]))
        check_labels(case, listed)
    return listed
