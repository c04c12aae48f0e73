"""Train a bundle: MONAI's own workflow of its `train` config, with a time budget, a history and pictures."""

import logging
from collections.abc import Callable
from pathlib import Path

import torch
from ignite.engine import Engine
from ignite.handlers import ProgressBar
from monai.bundle import ConfigWorkflow
from monai.handlers import CheckpointLoader
from torch import nn
from yaml import YAMLError

from monai_unetfamily.bundles.agreement import check_background
from monai_unetfamily.bundles.bundle import reason_of
from monai_unetfamily.bundles.checkpoint import CHECKPOINT
from monai_unetfamily.bundles.metadata import WEIGHTS, class_names, config_file, find_weights
from monai_unetfamily.bundles.networks import choose_network, forget_thresholds
from monai_unetfamily.bundles.weights import start_from
from monai_unetfamily.inference.device import choose_device
from monai_unetfamily.training.budget import check_schedule, decay_over, require_time, stop_in_time
from monai_unetfamily.training.calibration import calibrate_on
from monai_unetfamily.training.checks import check_dataset, check_request
from monai_unetfamily.training.history import History
from monai_unetfamily.training.room import logged_to, opened_room

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
    """Train a bundle on a data set in MSD layout or in paired folders, and return its file of weights.

    The workflow is the one that `python -m monai.bundle run` runs on the bundle's `train` config. After every epoch
    `models/checkpoint.pt` and `models/model.pt` are replaced whole. The last epoch is always validated; then the
    presence thresholds of a guided network are set on the cases that were watched (`calibration.py`). History,
    learning curve and a validation sample lie in `logs/`, beside TensorBoard's scalars and the log.

    Args:
        bundle: the bundle's folder; weights and logs go there.
        dataset: folder with a `dataset.json` in MSD layout, or with `images/` and `labels/`.
        output: train a copy of the bundle in this new folder.
        network: train this one of the bundle's networks, or of the family's; changes the bundle's metadata.
        minutes: of training and validation; ends after the last epoch that fits (one at the least), with the learning
            rate falling by a polynomial of power 0.9. Resumed runs count together, reading the cases does not count.
            Otherwise the config's `max_epochs` rules.
        resume: go on from `models/checkpoint.pt`.
        init_from: weights to start from: a file, or a bundle; for an FCN also those of one with fewer skips. Without
            it, training starts from scratch.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        log: is given a line for each step.

    Raises:
        FileNotFoundError, FileExistsError: files that are missing, or weights that would be lost.
        ValueError: a data set, a device or weights that do not fit.
    """
    check_request(bundle, output, network, minutes, resume, init_from)
    chosen = choose_device(device)
    check_dataset(bundle, dataset, log)
    with opened_room(bundle, output) as room, logged_to(room / "logs" / "train.log"):
        if network:
            choose_network(room, network)
        if output:
            forget_thresholds(room)
        history = History(room / "logs", class_names(room), log, resume=resume)
        try:
            _run(_workflow(room, dataset, chosen), room, history, minutes, resume, init_from)
        except (RuntimeError, TypeError, KeyError, ModuleNotFoundError, YAMLError) as error:
            raise ValueError(f"{config_file(room, 'train')}: {reason_of(error)}") from error
    return room / "models" / WEIGHTS


def _run(
    workflow: ConfigWorkflow, room: Path, history: History, minutes: float | None, resume: bool, init_from: Path | None
) -> None:
    if minutes is not None:
        require_time(history, 60 * minutes)
        decay_over(workflow, history, 60 * minutes)
    history.log("reading and preprocessing the cases")
    workflow.initialize()
    _prepare(workflow, room, history, resume, init_from)
    if minutes is not None:
        stop_in_time(workflow.trainer, history, 60 * minutes)
    history.log(f"training on {workflow.device}")
    workflow.run()
    history.finish(workflow.evaluator)
    _calibrate(workflow, room, history.log)
    workflow.finalize()


def _calibrate(workflow: ConfigWorkflow, bundle: Path, log: Callable[[str], None]) -> None:
    """Set a guide's thresholds on the cases that training watched: without a decoder, so quicker than validation."""
    if getattr(workflow.parser.get_parsed_content("network"), "cgm", None) is None:
        return
    log("setting the presence thresholds on the watched cases (unetfamily calibrate: on all validation cases)")
    try:
        calibrate_on(bundle, workflow.evaluator.data_loader.dataset.data, workflow.device, trust=True, log=log)
    except ValueError as error:  # the training is whole without them
        log(f"the presence thresholds stay as they were: {error}")


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
        start_from(network, find_weights(init_from))
    trainer: Engine = workflow.trainer
    check_background(history.names, network, trainer.loss_function, workflow.evaluator.inferer)  # type: ignore[attr-defined]
    if resume:
        objects = {name: parser.get_parsed_content(name) for name in ("network", "optimizer", "lr_scheduler")}
        checkpoint = bundle / "models" / CHECKPOINT
        check_schedule(checkpoint, objects["lr_scheduler"])
        everything = objects | {"trainer": trainer}
        CheckpointLoader(str(checkpoint), everything, map_location="cpu").attach(trainer)  # type: ignore[arg-type]
    history.attach(trainer, workflow.evaluator)
    ProgressBar(disable=None).attach(trainer, output_transform=lambda output: {"loss": output["loss"].item()})
