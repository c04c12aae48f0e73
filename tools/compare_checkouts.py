"""Compare what two checkouts of this package compute on this machine: run it before and after code is moved.

    .venv/bin/python tools/compare_checkouts.py BEFORE AFTER [--only STEP ...] [--bench] [--keep DIRECTORY]

BEFORE and AFTER are checkouts (git worktrees) whose environments exist (`make install` in each). Both process the
same images, which BEFORE's phantom generator and SimpleITK write. Label maps are compared voxel by voxel with
their affines and header codes, trained weights bit by bit, score tables number by number, and planned bundles
without the paths of classes. Hashes are not stored, since results depend on the processor.

Exit status: 0 where everything is equal, 1 where something differs, 2 where a command fails.
"""

import argparse
import hashlib
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel as nib
import numpy as np
import SimpleITK as sitk
import torch
from PIL import Image

Results = dict[str, str]  # what was computed -> its value or hash
_BOX = "10:70,8:60,4:26"  # voxels of a phantom of 96 x 80 x 30
_STARTS = 7  # of each checkout, in turns
_OPTIONS = {  # names of an option before and after it was renamed; the first one that --help lists is used
    "box": ("--box", "--roi"),
}
_TRAINING = {  # of the recipe, what is replaced: float32, and few batches an epoch
    r"monai_unetfamily[\w.]*\.MixedPrecisionInferer": "SimpleInferer",
    r"epoch_batches: \d+": "epoch_batches: 4",
}
_CLASS_PATH = re.compile(r"monai_unetfamily(?:\.\w+)+")
_MEASURED = re.compile(r"\d+(?:\.\d+)?")  # of lines that quote a speed


@dataclass(frozen=True)
class Checkout:
    """One checkout, and the directory for what it computes."""

    root: Path
    output: Path

    def run(self, *arguments: object) -> str:
        """Run `unetfamily` with these arguments and return what it printed.

        Raises:
            subprocess.CalledProcessError: the command ended with another status than 0.
        """
        command = [self.root / ".venv/bin/unetfamily", *arguments]
        # utf-8: writing DICOM leaves this process in the locale C
        return subprocess.run(list(map(str, command)), check=True, encoding="utf-8", capture_output=True).stdout

    def option(self, command: str, name: str) -> str:
        """Return how `command` spells an option of `_OPTIONS`."""
        usage = self.run(command, "--help")
        return next(option for option in _OPTIONS[name] if option in usage)

    def bundle(self, name: str) -> Path:
        """Return the directory of a shipped bundle."""
        return self.root / "configs" / name


def write_inputs(before: Checkout, inputs: Path) -> None:
    """Write the images: phantoms as NIfTI, MetaImage, DICOM and PNG, and a crop of the MNI152 template."""
    size = ("--size", 96, 80, 30, "--spacing", 3.2, 3.2, 7)
    before.run("phantom", inputs / "phantoms", "-n", 6, *size)
    before.run("phantom", inputs / "slices", "-n", 2, "--pictures", "--size", 96, 80, 30)
    image = sitk.ReadImage(str(inputs / "phantoms/imagesTr/phantom_000.nii.gz"))
    for key in image.GetMetaDataKeys():  # a NIfTI header's, which the other formats have no place for
        image.EraseMetaData(key)
    sitk.WriteImage(image, str(inputs / "phantom.mha"), useCompression=True)
    _write_dicom(sitk.Cast(image, sitk.sitkInt16), inputs / "dicom")
    from nilearn.datasets import load_mni152_template

    template = load_mni152_template(resolution=1)
    nib.save(template.slicer[100:140, 80:130, 40:80], inputs / "mni152.nii.gz")


def _write_dicom(image: sitk.Image, directory: Path) -> None:
    directory.mkdir()
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    directions = np.reshape(image.GetDirection(), (3, 3))
    for index in range(image.GetDepth()):
        position = image.TransformIndexToPhysicalPoint((0, 0, index))
        tags = {
            "0008|0008": "ORIGINAL\\PRIMARY\\AXIAL",
            "0008|0060": "CT",
            "0020|000d": "1.2.3",
            "0020|000e": "1.2.3.4",
            "0008|0018": f"1.2.3.4.{index + 1}",
            "0020|0013": str(index + 1),
            "0020|0032": "\\".join(f"{value:.6f}" for value in position),
            "0020|0037": "\\".join(f"{value:.6f}" for value in (*directions[:, 0], *directions[:, 1])),
        }
        one = image[:, :, index]
        for tag, value in tags.items():
            one.SetMetaData(tag, value)
        writer.SetFileName(str(directory / f"{index:03}.dcm"))
        writer.Execute(one)


def train(checkout: Checkout, inputs: Path) -> Results:
    """Train UNet++ for two epochs in float32 from a fixed seed."""
    bundle, trained = checkout.output / "bundle", checkout.output / "trained"
    shutil.copytree(checkout.bundle("phantom_ct"), bundle)
    config = bundle / "configs/train.yaml"
    text = config.read_text("utf-8")
    for pattern, replacement in _TRAINING.items():
        text, count = re.subn(pattern, replacement, text)
        if not count:
            raise ValueError(f"{config}: {pattern} is missing; adapt _TRAINING")
    config.write_text(text, "utf-8")
    options = ("--network", "unetplusplus", "--epochs", 2, "--seed", 1, "--device", "cpu")
    checkout.run("train", bundle, "--dataset", inputs / "phantoms", "-o", trained, *options)
    weights = torch.load(trained / "models/model.pt", weights_only=True)
    return {f"weights {name}": _hash(tensor.numpy().tobytes()) for name, tensor in sorted(weights.items())}


def predict(checkout: Checkout, inputs: Path) -> Results:
    """Predict label maps with the three shipped bundles; of MetaImage, DICOM, boxes, ensembles and levels too."""
    volume, scans = inputs / "phantoms/imagesTr/phantom_001.nii.gz", inputs / "phantoms/imagesTr"
    ct, trained = checkout.bundle("phantom_ct"), checkout.output / "trained"
    runs: dict[str, tuple[object, ...]] = {
        "NIfTI": (ct, scans),
        "MetaImage": (ct, inputs / "phantom.mha"),
        "DICOM": (ct, inputs / "dicom"),
        "2-D": (checkout.bundle("phantom_2d"), inputs / "slices/imagesTr"),
        "MR": (checkout.bundle("hippocampus_mr"), inputs / "mni152.nii.gz"),
        "box": (ct, volume, checkout.option("predict", "box"), _BOX),
        "ensemble": (ct, volume, "--ensemble", trained),
        "level": (trained, volume, "--level", 2),
    }
    results: Results = {}
    for name, (bundle, image, *options) in runs.items():
        output = checkout.output / "labels" / name
        checkout.run("predict", bundle, image, "-o", output, "--no-previews", "--device", "cpu", *options)
        results |= {f"{name} {label_map}": value for label_map, value in _label_maps(output).items()}
    return results


def _label_maps(output: Path) -> Results:
    found = {path.name: _nifti(path) for path in sorted(output.glob("*.nii.gz"))}
    found |= {path.name: _hash(np.asarray(Image.open(path)).tobytes()) for path in sorted(output.glob("*.png"))}
    if not found:
        raise ValueError(f"{output}: holds no label map")
    return found


def _nifti(path: Path) -> str:
    image = nib.load(path)
    header = image.header
    codes = [int(header[name]) for name in ("sform_code", "qform_code", "xyzt_units")]
    voxels = np.asarray(image.dataobj)
    return f"{voxels.dtype} {codes} {_hash(voxels.tobytes() + image.affine.tobytes())}"


def evaluate(checkout: Checkout, inputs: Path) -> Results:
    """Score the label maps of the phantoms."""
    table = checkout.output / "scores.csv"
    checkout.run("evaluate", checkout.output / "labels/NIfTI", inputs / "phantoms/labelsTr", "--csv", table)
    _, *rows = table.read_text("utf-8").splitlines()  # a column may have another name
    return {f"scores, row {index}": row for index, row in enumerate(rows)}


def plan(checkout: Checkout, inputs: Path) -> Results:
    """Plan a bundle; measured speeds and the paths of classes are left out."""
    bundle = checkout.output / "planned"
    options = ("--network", "unet", "--device", "cpu", "--memory", 4)
    checkout.run("plan", inputs / "phantoms", "-o", bundle, *options)
    files = [path for path in sorted(bundle.rglob("*")) if path.suffix in (".yaml", ".json")]
    texts = {str(path.relative_to(bundle)): _CLASS_PATH.sub("", path.read_text("utf-8")) for path in files}
    return {
        f"planned {name}, line {number}": _MEASURED.sub("#", line) if "second" in line else line
        for name, text in texts.items()
        for number, line in enumerate(text.splitlines())
    }


STEPS: dict[str, Callable[[Checkout, Path], Results]] = {
    "train": train,
    "predict": predict,  # with the bundle that train made
    "evaluate": evaluate,  # of what predict wrote
    "plan": plan,
}


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def compare(step: str, before: Results, after: Results) -> bool:
    """Print what differs in a step, and return whether nothing does."""
    different = [name for name in before | after if before.get(name) != after.get(name)]
    print(f"{step}: {len(before)} results, {len(different)} differ")
    for name in different:
        print(f"  {name}\n    before: {before.get(name, 'missing')}\n    after:  {after.get(name, 'missing')}")
    return not different


def time_starts(checkouts: tuple[Checkout, Checkout]) -> None:
    """Print how long `unetfamily --help` takes: the median of interleaved runs."""
    seconds: list[list[float]] = [[], []]
    for _ in range(_STARTS):
        for checkout, measured in zip(checkouts, seconds, strict=True):
            begin = time.perf_counter()
            checkout.run("--help")
            measured.append(time.perf_counter() - begin)
    before, after = map(statistics.median, seconds)
    print(f"start-up: {before:.3f} s before, {after:.3f} s after, ratio {after / before:.2f}")


def main() -> int:
    """Run the steps in both checkouts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("before", type=Path, help="checkout with an environment in .venv")
    parser.add_argument("after", type=Path, help="checkout with an environment in .venv")
    parser.add_argument("--only", nargs="+", choices=STEPS, default=list(STEPS), help="steps to run (default: all)")
    parser.add_argument("--bench", action="store_true", help="run `make bench QUICK=1` in both checkouts too")
    parser.add_argument("--keep", type=Path, help="new directory for what is computed (default: a temporary one)")
    options = parser.parse_args()
    with TemporaryDirectory() as temporary:
        directory = options.keep or Path(temporary)
        inputs = directory / "inputs"
        inputs.mkdir(parents=True)
        checkouts = tuple(
            Checkout(root.resolve(), directory / name)
            for root, name in ((options.before, "before"), (options.after, "after"))
        )
        for checkout in checkouts:
            checkout.output.mkdir()
        try:
            write_inputs(checkouts[0], inputs)
            equal = [
                compare(step, *(STEPS[step](checkout, inputs) for checkout in checkouts))
                for step in STEPS
                if step in options.only
            ]
            time_starts(checkouts)
        except subprocess.CalledProcessError as error:
            print(f"{' '.join(error.cmd)}\nended with status {error.returncode}: {error.stderr}", file=sys.stderr)
            return 2
    if options.bench:
        for checkout in checkouts:
            subprocess.run(["make", "bench", "QUICK=1"], cwd=checkout.root, check=True)
    return 0 if all(equal) else 1


if __name__ == "__main__":
    sys.exit(main())
