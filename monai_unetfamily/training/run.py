"""Train a bundle: MONAI's own workflow of its `train` config, with a time budget, a history and pictures."""

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from ignite.engine import Engine
from ignite.handlers import ProgressBar
from monai.bundle import ConfigWorkflow
from monai.handlers import CheckpointLoader
from torch import nn

from monai_unetfamily.bundles.bundle import (
    INSTALLED,
    check_network,
    choose_network,
    class_names,
    config_file,
    copy_bundle,
    load_weights,
)
from monai_unetfamily.bundles.checkpoint import CHECKPOINT, WEIGHTS
from monai_unetfamily.inference.device import choose_device
from monai_unetfamily.training.budget import check_schedule, decay_over, stop_in_time
from monai_unetfamily.training.history import History
from monai_unetfamily.volumes.cases import check_labels, load_cases, read_label_names
from monai_unetfamily.volumes.files import make_folder, require_free

_LOGGER = logging.getLogger(__name__)


def train(
    bundle: Path,
    dataset: Path,
    *,
    output: Path | None = None,
    network: str | None = None,
    minutes: float | None = None,
    resume: bool = False,
    init_from: Path | None = None,
    device: str = "auto",
    log: Callable[[str], None] = _LOGGER.info,
) -> Path:
    """Train a bundle on a data set in MSD layout, and return its file of weights.

    The workflow is the one that `python -m monai.bundle run` runs on the bundle's `train` config. After every epoch
    `models/checkpoint.pt` and `models/model.pt` are replaced whole, and history, learning curve and a validation
    sample lie in `logs/`, beside TensorBoard's scalars and the log.

    Args:
        bundle: the bundle's folder; weights and logs go there.
        dataset: folder with a `dataset.json` in MSD layout.
        output: train a copy of the bundle in this new folder.
        network: train this one of the bundle's networks; changes the one word in its metadata.
        minutes: end after the epoch that would pass this time, with the learning rate falling towards it by a
            polynomial of power 0.9; resumed runs count together. Otherwise the config's `max_epochs` rules.
        resume: go on from `models/checkpoint.pt`.
        init_from: weights to start from.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        log: is given a line for each step.

    Raises:
        FileNotFoundError, FileExistsError: files that are missing, or weights that would be lost.
        ValueError: a data set, a device or weights that do not fit.
    """
    _check_request(bundle, output, network, minutes, resume, init_from)
    chosen = choose_device(device)
    _check_dataset(bundle, dataset, log)
    with _room(bundle, output) as room:
        if network:
            choose_network(room, network)
        make_folder(room / "logs")
        _log_to(room / "logs" / "train.log")
        history = History(room / "logs", class_names(room), log, resume=resume)
        workflow = _workflow(room, dataset, chosen)
        if minutes is not None:
            decay_over(workflow, history, 60 * minutes)
        log("reading and preprocessing the cases")
        workflow.initialize()
        _prepare(workflow, room, history, resume, init_from)
        if minutes is not None:
            stop_in_time(workflow.trainer, history, 60 * minutes)
        log(f"training on {chosen}")
        workflow.run()
        workflow.finalize()
    return room / "models" / WEIGHTS


@contextmanager
def _room(bundle: Path, output: Path | None) -> Iterator[Path]:
    """The folder to train in; a copy that gets no weights does not stay behind."""
    if output is None:
        yield bundle
        return
    try:
        copy_bundle(bundle, output)
        yield output
    finally:
        if not (output / "models" / WEIGHTS).exists():
            shutil.rmtree(output, ignore_errors=True)


def _check_request(
    bundle: Path,
    output: Path | None,
    network: str | None,
    minutes: float | None,
    resume: bool,
    init_from: Path | None,
) -> None:
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
    if init_from and not init_from.is_file():
        raise FileNotFoundError(f"{init_from}: no such file; give a file of weights.")
    if output:
        require_free(output)


def _check_dataset(bundle: Path, dataset: Path, log: Callable[[str], None]) -> None:
    """Refuse labels that do not fit their images or the bundle's classes, before any time is spent."""
    names = class_names(bundle)
    unknown = set(read_label_names(dataset)) - set(names)
    if unknown:
        raise ValueError(
            f"{dataset}: labels {sorted(unknown)} are not among this bundle's classes {names}; choose another bundle."
        )
    training, validation = load_cases(dataset, "training"), load_cases(dataset, "validation")
    log(f"checking {len(training)} training and {len(validation)} validation cases of {dataset}")
    for case in training + validation:
        check_labels(case, names)


def _log_to(file: Path) -> None:
    logging.basicConfig(
        filename=file, level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s", force=True
    )
    logging.getLogger("monai.bundle.workflows").setLevel(logging.ERROR)  # warns that its own logging is off


def _workflow(bundle: Path, dataset: Path, device: torch.device) -> ConfigWorkflow:
    return ConfigWorkflow(
        config_file=str(config_file(bundle, "train")),
        logging_file=False,
        workflow_type="train",
        bundle_root=str(bundle),
        dataset_dir=str(dataset),
        device=device,
    )


def _prepare(workflow: ConfigWorkflow, bundle: Path, history: History, resume: bool, init_from: Path | None) -> None:
    parser = workflow.parser
    network: nn.Module = parser.get_parsed_content("network")
    if init_from:
        load_weights(network, init_from)
    trainer: Engine = workflow.trainer
    if resume:
        objects = {name: parser.get_parsed_content(name) for name in ("network", "optimizer", "lr_scheduler")}
        checkpoint = bundle / "models" / CHECKPOINT
        check_schedule(checkpoint, objects["lr_scheduler"])
        CheckpointLoader(str(checkpoint), objects | {"trainer": trainer}).attach(trainer)
    history.attach(trainer, workflow.evaluator)
    ProgressBar(disable=None).attach(trainer, output_transform=lambda output: {"loss": output["loss"].item()})
