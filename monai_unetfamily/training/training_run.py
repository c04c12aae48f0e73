"""Train a bundle with MONAI's workflow of its `train` config."""

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from ignite.engine import Engine, Events
from monai.bundle import DEFAULT_EXP_MGMT_SETTINGS, ConfigParser, ConfigWorkflow
from monai.handlers import MLFlowHandler
from torch import nn
from tqdm import tqdm
from yaml import YAMLError

from monai_unetfamily.bundles import (
    WEIGHTS,
    check_background,
    choose_network,
    class_names,
    config_file,
    copy_bundle,
    find_weights,
    reason_of,
    reset_thresholds,
    start_from,
)
from monai_unetfamily.bundles.trust import training_parser
from monai_unetfamily.data import Fold, load_cases
from monai_unetfamily.handlers import CHECKPOINT, saved_epoch
from monai_unetfamily.io import make_directory
from monai_unetfamily.prediction import choose_device
from monai_unetfamily.training.budget import check_schedule, decay_over, is_over, require_time, stop_in_time
from monai_unetfamily.training.calibration import calibrate_on
from monai_unetfamily.training.history import History, last_step
from monai_unetfamily.training.training_checks import (
    check_dataset,
    check_request,
    check_settings,
    check_trust,
    kept_settings,
    record_split,
)
from monai_unetfamily.training.validation import SCORES, forget_result, validate

# Where a training lives: the bundle itself or a copy of it, and the log beside it.


@contextmanager
def training_directory(bundle: Path, output: Path | None) -> Iterator[Path]:
    """The folder to train in, where no other training is at work; a copy that gets no weights does not stay behind.

    Raises:
        FileExistsError: another training is at work there.
    """
    directory = output or bundle
    if output:
        copy_bundle(bundle, output)
    with _alone_in(directory):
        try:
            yield directory
        finally:
            if output and not (output / "models" / WEIGHTS).exists():
                shutil.rmtree(output, ignore_errors=True)


@contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    make_directory(directory / "logs")
    lock = FileLock(directory / "logs" / ".training")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        got = "another training is at work here"
        raise FileExistsError(f"{directory}: {got}; wait until it has ended, or train a copy (-o).") from None
    try:
        yield
    finally:
        with suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()


class _Log(logging.FileHandler):
    """A log that a full disk cuts short, which the run's own error tells of."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Print no traceback."""


@contextmanager
def logged_to(file: Path) -> Iterator[None]:
    """Whatever MONAI and ignite log meanwhile, in a file as well."""
    make_directory(file.parent)
    handler = _Log(file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.getLogger("monai.bundle.workflows").setLevel(logging.ERROR)  # warns that its own logging is off
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
        with suppress(OSError):
            handler.close()


# A bar for a whole training, with the time that is left.

_STEPS = 1000
_FORMAT = "{desc} {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left {postfix}"


@contextmanager
def shown_progress(trainer: Engine, share: Callable[[], float]) -> Iterator[None]:
    """Draw a bar on a terminal while the trainer runs, none elsewhere.

    Args:
        trainer: a MONAI trainer, whose output has a loss.
        share: of the training that is done, 0 to 1.
    """
    bar = tqdm(total=_STEPS, bar_format=_FORMAT, disable=None, leave=False, dynamic_ncols=True)

    def begin() -> None:
        bar.initial = bar.n = int(_STEPS * share())  # resumed: what was done took none of the time that is shown

    def step(engine: Engine) -> None:
        bar.set_description_str(f"epoch {engine.state.epoch}", refresh=False)
        bar.set_postfix_str(f"loss {last_step(engine)[0]:.3f}", refresh=False)
        bar.update(int(_STEPS * share()) - bar.n)

    trainer.add_event_handler(Events.STARTED, begin)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, step)
    with bar:
        yield


# A training told to MLflow as it goes: MONAI's own handlers and settings, added to a bundle's workflow.

_NEEDED = ("mlflow", "sqlalchemy", "alembic")  # the last two for the local store


def check_tracking(tracking: str | None) -> None:
    """Refuse a training that could not be tracked.

    Raises:
        ImportError: names the packages of the extra `tracking` that are missing.
        ValueError: a tracker that MONAI has no settings for.
    """
    if tracking is None:
        return
    if tracking not in DEFAULT_EXP_MGMT_SETTINGS:
        raise ValueError(f"tracking is {tracking!r}; {', '.join(DEFAULT_EXP_MGMT_SETTINGS)} is allowed: name it.")
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise ImportError(
            f"tracking needs {', '.join(missing)}, which this environment lacks: "
            "pip install 'monai-unetfamily[tracking]'."
        )


def track(parser: ConfigParser, tracking: str) -> None:
    """Add handlers to a train config that log losses, scores, parameters and the config itself.

    MONAI's settings stand in place of the bundle's own, which could lead anywhere.

    Args:
        parser: of the config, in which nothing is resolved yet.
        tracking: "mlflow". The local store goes to `logs/mlruns.db`, the config to `logs/config_DATE.json`.
    """
    settings: dict[str, Any] = deepcopy(DEFAULT_EXP_MGMT_SETTINGS[tracking])
    shared = {key: value for key, value in settings["configs"].items() if key not in settings["handlers_id"]}
    device = {"_target_": "torch.device", "device": str(parser["device"])}  # as a file can hold it
    for key, value in {**shared, "output_dir": "$@bundle_root + '/logs'", "device": device}.items():
        parser[key] = value
    settings["configs"]["trainer"]["close_on_complete"] = False  # the last validation is still to come
    ConfigWorkflow.patch_bundle_tracking(parser, settings)


def end_tracking(parser: ConfigParser) -> None:
    """Tell MLflow that a run is finished, one that `track` began."""
    for handler in parser.get_parsed_content("train#handlers"):
        if isinstance(handler, MLFlowHandler):
            handler.close()


# Train a bundle: MONAI's own workflow of its `train` config, with a time budget, a history and pictures.

_LOGGER = logging.getLogger(__name__)


def train(
    bundle: Path,
    dataset: Path,
    *,
    output: Path | None = None,
    network: str | None = None,
    minutes: float | None = None,
    epochs: int | None = None,
    fold: Fold = None,
    resume: bool = False,
    init_from: Path | None = None,
    cache_dir: Path | None = None,
    seed: int | None = None,
    device: str = "auto",
    tracking: str | None = None,
    trust: bool = False,
    log: Callable[[str], None] = _LOGGER.info,
) -> Path:
    """Train a bundle on a data set, and return its file of weights.

    The workflow is the one that `python -m monai.bundle run` runs on the bundle's `train` config. After every epoch
    `models/checkpoint.pt` and `models/model.pt` are replaced whole, and `models/model_best.pt` where the validation was
    the best until then: `model.pt`, the last epoch's, is what prediction uses. The last epoch is always validated; then
    the presence thresholds of a guided network are set on the cases that were watched (`calibration.py`). History,
    learning curve, a validation sample and the cases of either section (`split.json`) lie in `logs/`, beside
    TensorBoard's scalars and the log.

    Args:
        bundle: the bundle's folder; weights and logs go there.
        dataset: folder in MSD or nnU-Net layout, or with `images/` and `labels/`.
        output: train a copy of the bundle in this new folder.
        network: train this one of the bundle's networks, or of the family's; changes the bundle's metadata.
        minutes: of training and validation; ends after the last epoch that fits (one at the least), with the learning
            rate falling by a polynomial of power 0.9. Resumed runs count together, reading the cases does not count.
            Otherwise `epochs` rules, or the config's `minutes` or `max_epochs`.
        epochs: in place of the config's `max_epochs`.
        fold: as `load_cases` takes it: which cases are trained on, which validate.
        resume: go on from `models/checkpoint.pt`: without a budget of minutes exactly as it would have gone on. One
            that has had all its epochs or minutes, and was killed before its figures, gets these.
        init_from: weights to start from: a file, or a bundle; for an FCN also those of one with fewer skips. Without
            it, training starts from scratch.
        cache_dir: folder of the preprocessed cases, which trainings may share; by default the bundle's `cache`.
        seed: of weights, order and augmentation, in place of the config's.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        tracking: "mlflow" logs to MLflow too, in `logs/mlruns.db` or at `MLFLOW_TRACKING_URI`.
        trust: whether the bundle may run code of its own, and write where it says; what it runs is logged first.
        log: is given a line for each step.

    Raises:
        FileNotFoundError, FileExistsError: files that are missing, or weights that would be lost.
        ImportError: tracking without the packages that it needs.
        UntrustedBundleError: it would run code of its own or leave its folder, and is not trusted; nothing was run.
        ValueError: a data set, a device or weights that do not fit, options that the bundle's config has no key for.
    """
    check_request(bundle, output, network, minutes, epochs, fold, seed, resume, init_from, trust=trust)
    check_tracking(tracking)
    chosen = choose_device(device)
    kept = kept_settings(bundle / "logs") if resume else {"fold": fold, "seed": seed}
    cache = None if cache_dir is None else str(cache_dir.absolute())
    asked = {"max_epochs": epochs, "cache_dir": cache, "resume": resume or None, **kept}
    settings = {key: value for key, value in asked.items() if value is not None}
    config = check_settings(bundle, settings)
    if minutes is None and epochs is None:
        minutes = config.get("minutes")
    settings |= {"dataset_dir": str(dataset.absolute()), "device": chosen, "minutes": minutes}
    check_trust(bundle, settings, log, trust=trust)
    names = check_dataset(bundle, dataset, log, fold=settings.get("fold"))
    with training_directory(bundle, output) as directory, logged_to(directory / "logs" / "train.log"):
        if network:
            choose_network(directory, network, trust=trust)
        if output:
            reset_thresholds(directory, trust=trust)
        try:
            workflow = _workflow(directory, settings, tracking, trust=trust)
            _run(workflow, directory, minutes, init_from, log, trust=trust)
            if tracking:
                end_tracking(workflow.parser)
            validate(
                directory, load_cases(dataset, "validation", settings.get("fold")), names, chosen, log, trust=trust
            )
        except (RuntimeError, TypeError, KeyError, ImportError, YAMLError) as error:
            raise ValueError(f"{config_file(directory, 'train')}: {reason_of(error)}") from error
    return directory / "models" / WEIGHTS


def _workflow(bundle: Path, settings: Mapping[str, Any], tracking: str | None = None, *, trust: bool) -> ConfigWorkflow:
    file = str(config_file(bundle, "train"))
    workflow = ConfigWorkflow(config_file=file, logging_file=False, workflow_type="train")  # logging.conf is code
    workflow.parser = training_parser(bundle, settings, trust=trust)
    if tracking:
        track(workflow.parser, tracking)
    if not trust:  # run() puts the bundle on Python's path, where its modules would go before installed ones
        workflow.config_root_path = Path(os.devnull)
    return workflow


def _run(
    workflow: ConfigWorkflow,
    directory: Path,
    minutes: float | None,
    init_from: Path | None,
    log: Callable[[str], None],
    *,
    trust: bool,
) -> None:
    config, resume = workflow.parser, bool(workflow.parser.get("resume", False))
    history = History(directory / "logs", class_names(directory), log, resume=resume)
    if resume:
        history.end_at(saved_epoch(directory / "models" / CHECKPOINT))
    if minutes is not None:
        if not _lacks_figures_alone(history, directory, minutes):
            require_time(history, 60 * minutes)
        decay_over(workflow, history, 60 * minutes)
    log("reading and preprocessing the cases")
    workflow.initialize()
    record_split(directory / "logs", config, resume=resume)
    _prepare(workflow, directory, history, resume, init_from)
    if minutes is not None:
        stop_in_time(workflow.trainer, history, 60 * minutes)
    log(f"training on {workflow.device}")
    if not _lacks_figures_alone(history, directory, minutes, workflow.trainer.state.max_epochs):
        workflow.trainer.add_event_handler(Events.STARTED, lambda: forget_result(directory))
        with shown_progress(workflow.trainer, lambda: _share(workflow.trainer, history, minutes)):
            workflow.run()
        _validate_last(workflow, history)
    _calibrate(workflow, directory, log, trust=trust)
    workflow.finalize()


def _lacks_figures_alone(history: History, directory: Path, minutes: float | None, epochs: int | None = None) -> bool:
    """Whether a resumed training was killed after its last epoch, while it was evaluated."""
    if not history.epochs or (directory / SCORES).is_file():
        return False
    last = history.epochs[-1]
    return last.epoch == epochs if minutes is None else is_over(history.epochs, last.seconds, 60 * minutes)


def _validate_last(workflow: ConfigWorkflow, history: History) -> None:
    if history.finish(workflow.trainer, workflow.evaluator):
        for handler in ("best", "checkpoint"):  # which saw the epoch before its validation
            workflow.parser.get_parsed_content(handler)(workflow.trainer)


def _prepare(workflow: ConfigWorkflow, bundle: Path, history: History, resume: bool, init_from: Path | None) -> None:
    network: nn.Module = workflow.parser.get_parsed_content("network")
    if init_from:
        start_from(network, find_weights(init_from))
    trainer: Engine = workflow.trainer
    check_background(history.names, network, trainer.loss_function, workflow.evaluator.inferer)  # type: ignore[attr-defined]
    if resume:
        check_schedule(bundle / "models" / CHECKPOINT, workflow.parser.get_parsed_content("lr_scheduler"))
    history.attach(trainer, workflow.evaluator)


def _share(trainer: Engine, history: History, minutes: float | None) -> float:
    """Of the training, what is done."""
    state = trainer.state
    if minutes is not None:
        return min(1.0, history.seconds / (60 * minutes))
    return state.iteration / ((state.max_epochs or 1) * (state.epoch_length or 1))


def _calibrate(workflow: ConfigWorkflow, bundle: Path, log: Callable[[str], None], *, trust: bool) -> None:
    """Set a guide's thresholds on the cases that training watched: without a decoder, so quicker than validation."""
    if getattr(workflow.parser.get_parsed_content("network"), "cgm", None) is None:
        return
    log("setting the presence thresholds on the watched cases (unetfamily calibrate: on all validation cases)")
    try:
        calibrate_on(bundle, workflow.evaluator.data_loader.dataset.data, workflow.device, trust=trust, log=log)
    except ValueError as error:  # the training is whole without them
        log(f"the presence thresholds stay as they were: {error}")
