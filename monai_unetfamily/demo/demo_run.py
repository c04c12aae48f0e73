"""The shipped bundles at work in a minute: phantoms against their exact labels, and the hippocampi of a template."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from monai_unetfamily.bundles import SHIPPED, class_names, open_bundle
from monai_unetfamily.cohort import PREVIEWS, Record, predict_cohort
from monai_unetfamily.data import find_studies
from monai_unetfamily.data.phantom import write_phantoms
from monai_unetfamily.demo.mni152 import write_crops
from monai_unetfamily.evaluation import align, evaluate_case, evaluate_folders, format_table, summarize, write_csv
from monai_unetfamily.io import Labels, make_directory, read_volume, require_free
from monai_unetfamily.prediction import choose_device
from monai_unetfamily.reporting import save_overlay

CASES = 8
SEED = 1  # phantom_ct was trained on phantoms of seed 0
_MARK = ".unetfamily-demo"  # says that a folder is the demo's own, and may be made anew
_YARDSTICKS = (
    "A hippocampus holds 2.4 to 4.4 ml in the 208 reference labels of the bundle's data set; other ways to draw and\n"
    "measure one gave means from 1.7 to 5.7 ml (Honeycutt and Smith, J Neuroimaging 1995)."
)
_PHANTOM_RESULTS = {
    "phantom.png": "picture of one phantom: predicted organs are filled, their true outlines are dashed",
    "phantom_labels/report.html": f"page with a picture and the volumes of each of the {CASES} phantoms",
    "scores.csv": "Dice, surface distance and volume error of each organ in each phantom",
}
_HIPPOCAMPUS_RESULTS = {
    f"mni152_labels/{PREVIEWS}/left.png": "picture of the left hippocampus: anterior part orange, posterior part blue",
    f"mni152_labels/{PREVIEWS}/right.png": "picture of the right hippocampus, in the same colors",
    "mni152_labels/report.html": "page with both pictures and the volumes",
}
Log = Callable[[str], None]


def run_demo(output: Path, *, device: str = "auto", log: Log = lambda line: None) -> None:
    """Segment phantoms and evaluate them; segment both hippocampi of the MNI152 template and measure them.

    Everything lies in `output`: `phantoms`, `phantom_labels`, `scores.csv`, `phantom.png`, `mni152`, `mni152_labels`.
    The demo may be run again, and then makes it anew. Nothing is downloaded. Without nilearn, which contains the
    template, this half is left out, and the last line says so.

    Args:
        output: a new or empty folder, or that of an earlier demo.
        device: as `choose_device` takes it.
        log: is given a line for each step, the tables, and the list of the files to look at.

    Raises:
        FileExistsError: where `output` holds something that the demo did not make.
        ValueError: of `choose_device`.
    """
    chosen = choose_device(device)
    _make_room(output)
    _show_phantoms(output, chosen, log)
    has_template = find_spec("nilearn") is not None
    if has_template:
        _show_hippocampi(output, chosen, log)
    log(_describe_results(output, _PHANTOM_RESULTS | (_HIPPOCAMPUS_RESULTS if has_template else {})))
    if not has_template:
        log("There are no hippocampi: nilearn, which contains the MNI152 template, is missing: pip install nilearn")


def _describe_results(output: Path, results: Mapping[str, str]) -> str:
    return "\n".join(["The demo made these files:", *(f"  {output / name} - {what}" for name, what in results.items())])


def _make_room(output: Path) -> None:
    if (output / _MARK).is_file():
        shutil.rmtree(output)
    require_free(output)
    make_directory(output)
    (output / _MARK).touch()


def _show_phantoms(output: Path, device: torch.device, log: Log) -> None:
    data, predictions, names = output / "phantoms", output / "phantom_labels", class_names(SHIPPED / "phantom_ct")
    log(f"1/4 making {CASES} CT-like phantoms in {data}")
    images = write_phantoms(data, CASES, SEED)
    log("2/4 segmenting them with phantom_ct, which has never seen them")
    _predict("phantom_ct", images, predictions, device, log)
    scores = evaluate_folders(predictions, data / "labelsTr", names)
    write_csv(scores, output / "scores.csv")
    log(format_table(summarize(scores)))
    _draw(images[0], predictions / images[0].name, data / "labelsTr" / images[0].name, output / "phantom.png")


def _show_hippocampi(output: Path, device: torch.device, log: Log) -> None:
    crops, predictions = output / "mni152", output / "mni152_labels"
    log(f"3/4 cropping the MNI152 template around its hippocampi in {crops}")
    make_directory(crops)
    images = write_crops(crops)
    log("4/4 segmenting them with hippocampus_mr")
    records = _predict("hippocampus_mr", images, predictions, device, log)
    log(_format_volumes(records))
    log(_YARDSTICKS)
    log(_compare_sides(*(predictions / image.name for image in images)))


def _predict(bundle: str, images: Sequence[Path], output: Path, device: torch.device, log: Log) -> list[Record]:
    opened = open_bundle(SHIPPED / bundle, device)
    case_results = list(predict_cohort([opened], find_studies(images).studies, output, log=log))
    for case_result in case_results:
        if case_result.error is not None:
            raise case_result.error
    return [case_result.record for case_result in case_results]


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
