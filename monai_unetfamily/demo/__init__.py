"""The shipped bundles at work in a minute: phantoms against their exact labels, and the hippocampi of a template."""

import shutil
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from monai_unetfamily.bundles.bundle import open_bundle
from monai_unetfamily.bundles.metadata import SHIPPED, class_names
from monai_unetfamily.demo.mni152 import write_crops
from monai_unetfamily.evaluation import evaluate_case, evaluate_folders, format_table, summarize, write_csv
from monai_unetfamily.evaluation.tables import align
from monai_unetfamily.inference.batch import predict_cohort
from monai_unetfamily.inference.device import choose_device
from monai_unetfamily.inference.outputs import PREVIEWS
from monai_unetfamily.inference.records import Record
from monai_unetfamily.inference.report import save_overlay
from monai_unetfamily.volumes.files import make_folder, require_free
from monai_unetfamily.volumes.nifti import Labels, read_volume
from monai_unetfamily.volumes.phantom import write_phantoms
from monai_unetfamily.volumes.studies import find_studies

CASES = 8
SEED = 1  # phantom_ct was trained on phantoms of seed 0
_MARK = ".unetfamily-demo"  # says that a folder is the demo's own, and may be made anew
_YARDSTICKS = (
    "A hippocampus holds 2.4 to 4.4 ml in the 208 reference labels of the bundle's data set; other ways to draw and\n"
    "measure one gave means from 1.7 to 5.7 ml (Honeycutt and Smith, J Neuroimaging 1995)."
)
Log = Callable[[str], None]


def run_demo(output: Path, *, device: str = "auto", log: Log = lambda line: None) -> None:
    """Segment phantoms and evaluate them; segment both hippocampi of the MNI152 template and measure them.

    Everything lies in `output`: `phantoms`, `phantom_labels`, `scores.csv`, `phantom.png`, `mni152`, `mni152_labels`.
    The demo may be run again, and then makes it anew. Nothing is downloaded. Without nilearn, which carries the
    template, the log says that this half is left out.

    Args:
        output: a new or empty folder, or that of an earlier demo.
        device: as `choose_device` takes it.
        log: is given a line for each step, and the tables.

    Raises:
        FileExistsError: where `output` holds something that the demo did not make.
        ValueError: of `choose_device`.
    """
    chosen = choose_device(device)
    _make_room(output)
    _show_phantoms(output, chosen, log)
    if find_spec("nilearn") is None:
        log("No hippocampi: nilearn, which carries the MNI152 template, is not installed; pip install nilearn")
        return
    _show_hippocampi(output, chosen, log)


def _make_room(output: Path) -> None:
    if (output / _MARK).is_file():
        shutil.rmtree(output)
    require_free(output)
    make_folder(output)
    (output / _MARK).touch()


def _show_phantoms(output: Path, device: torch.device, log: Log) -> None:
    data, predictions, names = output / "phantoms", output / "phantom_labels", class_names(SHIPPED / "phantom_ct")
    log(f"1/4 making {CASES} CT-like phantoms in {data}")
    images = write_phantoms(data, CASES, SEED)
    log(f"2/4 segmenting them with phantom_ct, which has never seen them; look at {predictions / 'report.html'}")
    _predict("phantom_ct", images, predictions, device, log)
    scores = evaluate_folders(predictions, data / "labelsTr", names)
    write_csv(scores, output / "scores.csv")
    log(format_table(summarize(scores)))
    _draw(images[0], predictions / images[0].name, data / "labelsTr" / images[0].name, output / "phantom.png")
    log(f"prediction and truth of the first one: {output / 'phantom.png'}")


def _show_hippocampi(output: Path, device: torch.device, log: Log) -> None:
    crops, predictions = output / "mni152", output / "mni152_labels"
    log(f"3/4 cropping the MNI152 template around its hippocampi in {crops}")
    make_folder(crops)
    images = write_crops(crops)
    log(f"4/4 segmenting them with hippocampus_mr; look at {predictions / 'report.html'}")
    records = _predict("hippocampus_mr", images, predictions, device, log)
    log(_format_volumes(records))
    log(_YARDSTICKS)
    log(_compare_sides(*(predictions / image.name for image in images)))
    log(f"pictures: {', '.join(str(predictions / PREVIEWS / f'{record.name}.png') for record in records)}")


def _predict(bundle: str, images: Sequence[Path], output: Path, device: torch.device, log: Log) -> list[Record]:
    opened = open_bundle(SHIPPED / bundle, device)
    outcomes = list(predict_cohort([opened], find_studies(images).studies, output, log=log))
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
    return [outcome.record for outcome in outcomes]


def _draw(image: Path, prediction: Path, truth: Path, picture: Path) -> None:
    voxels, affine = read_volume(image)
    labels, reference = _read_labels(prediction), _read_labels(truth)
    title = f"{image.name}: prediction (filled) and truth (dashed)"
    names = class_names(SHIPPED / "phantom_ct")
    save_overlay(voxels, labels, affine, picture, names, reference=reference, title=title)


def _format_volumes(records: Sequence[Record]) -> str:
    """A row a crop: ml of each class, and of all."""
    header = ["hippocampus", *(f"{row['name']} ml" for row in records[0].classes), "all ml"]
    volumes = [(record.name, [float(row["volume_ml"]) for row in record.classes]) for record in records]
    return align([header, *([name, *(f"{ml:.2f}" for ml in (*each, sum(each)))] for name, each in volumes)])


def _compare_sides(left: Path, right: Path) -> str:
    classes = {label: name for label, name in class_names(SHIPPED / "hippocampus_mr").items() if label}
    scores = evaluate_case(_read_labels(left), _read_labels(right)[::-1], (1.0, 1.0, 1.0), classes)
    agreement = ", ".join(f"{score.label} {score.dice:.3f}" for score in scores)
    return f"The template's halves are mirror images: Dice of the left labels and the mirrored right ones: {agreement}"


def _read_labels(file: Path) -> Labels:
    return read_volume(file)[0].astype(np.uint8)
