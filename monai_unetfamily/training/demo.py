"""The whole walk in a few minutes: phantoms, training, prediction, evaluation, a picture."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from monai_unetfamily.bundles.bundle import open_bundle
from monai_unetfamily.bundles.metadata import class_names, find_bundle
from monai_unetfamily.evaluation import Summary, evaluate_folders, format_table, summarize, write_csv
from monai_unetfamily.inference.batch import predict_cohort
from monai_unetfamily.inference.device import choose_device
from monai_unetfamily.inference.report import save_overlay
from monai_unetfamily.training.run import train
from monai_unetfamily.volumes.cases import load_cases
from monai_unetfamily.volumes.files import make_folder, require_free
from monai_unetfamily.volumes.nifti import read_volume
from monai_unetfamily.volumes.phantom import write_phantoms
from monai_unetfamily.volumes.studies import find_studies

CASES = 24
_MARK = ".unetfamily-demo"  # says that a folder is the demo's own, and may be made anew


def run_demo(
    output: Path, *, minutes: float = 3.0, device: str = "auto", log: Callable[[str], None] = lambda line: None
) -> list[Summary]:
    """Make phantoms, train UNet 3+ with CGM on them, predict the held-out ones, evaluate, draw one.

    Everything lies in `output`; the demo may be run again, and then makes it anew.

    Args:
        output: folder for the phantoms, the trained bundle, the predictions, `scores.csv` and `overlay.png`.
        minutes: of training.
        device: as `choose_device` takes it.
        log: is given a line for each step.

    Raises:
        FileExistsError: where `output` holds something that the demo did not make.
    """
    chosen = choose_device(device)
    if minutes <= 0:
        raise ValueError(f"minutes is {minutes}; more than 0 is needed.")
    _make_room(output)
    data, bundle, predictions = output / "phantoms", output / "phantom_ct", output / "predictions"
    log(f"1/5 making {CASES} CT-like phantoms in {data}")
    write_phantoms(data, CASES)
    log(f"2/5 training UNet 3+ with the classification-guided module for {minutes:g} minutes in {bundle}")
    train(find_bundle("phantom_ct"), data, output=bundle, minutes=minutes, device=device, log=log)
    held_out = load_cases(data, "validation")
    log(f"3/5 predicting {len(held_out)} phantoms that it has not seen; look at {predictions}/report.html")
    _predict(bundle, held_out, predictions, chosen)
    log("4/5 evaluating")
    summaries = _evaluate(bundle, held_out, predictions, output / "scores.csv")
    log(format_table(summaries))
    log(f"5/5 drawing {output / 'overlay.png'}")
    _draw(bundle, held_out[0], predictions, output / "overlay.png")
    return summaries


def _make_room(output: Path) -> None:
    if (output / _MARK).is_file():
        shutil.rmtree(output)
    require_free(output)
    make_folder(output)
    (output / _MARK).touch()


def _predict(bundle: Path, cases: list[dict[str, str]], predictions: Path, device: torch.device) -> None:
    opened = open_bundle(bundle, device)
    for outcome in predict_cohort([opened], find_studies([case["image"] for case in cases]).studies, predictions):
        if outcome.error is not None:
            raise outcome.error


def _evaluate(bundle: Path, cases: list[dict[str, str]], predictions: Path, table: Path) -> list[Summary]:
    references = [Path(case["label"]) for case in cases]
    scores = evaluate_folders(predictions, references, class_names(bundle))
    write_csv(scores, table)
    return summarize(scores)


def _draw(bundle: Path, case: dict[str, str], predictions: Path, picture: Path) -> None:
    image, affine = read_volume(Path(case["image"]))
    labels, reference = (
        read_volume(file)[0].astype(np.uint8) for file in (predictions / Path(case["label"]).name, Path(case["label"]))
    )
    title = f"{Path(case['image']).name}: prediction (filled) and truth (dashed)"
    save_overlay(image, labels, affine, picture, class_names(bundle), reference=reference, title=title)
