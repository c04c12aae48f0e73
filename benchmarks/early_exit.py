"""The early exit of a guided network on tall phantoms, beside its full run.

The network is the bundle `organs_ct` beside this file. It knows the spleen and the kidneys, which touch a window in
sixteen of a phantom of a metre. Its data: python -m benchmarks.early_exit FOLDER.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

import nibabel as nib
import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from torch import Tensor

from benchmarks.measure import Spread
from benchmarks.table import Row
from monai_unetfamily.bundles import Bundle, class_names, open_bundle
from monai_unetfamily.data.phantom import make_phantom, write_phantoms
from monai_unetfamily.data.phantom.anatomy import ID
from monai_unetfamily.io import save_image
from monai_unetfamily.nets import UNet3Plus

BUNDLE = Path(__file__).parent / "organs_ct"
SHAPE, SPACING = (125, 100, 250), (4.0, 4.0, 4.0)  # 500 x 400 x 1000 mm
UNSEEN = 1_000_003  # a seed that no case of the training has


@dataclass(frozen=True)
class EarlyExit:
    """What a volume's scores cost with the exit and without it, in interleaved runs."""

    ratios: tuple[float, ...]  # time of the full run over that with the exit, one a round
    bounds: tuple[float, ...]  # time of the full run over that of the encoder and the guide alone: no exit is faster
    windows: int
    touched: float  # share of the windows that hold a voxel of an organ
    exits: float  # share of the windows whose decoder did not run
    lost: float  # share of the windows with an organ among those
    differing: int  # voxels whose label is another one


CASES = {"full": (SHAPE, 3), "quick": ((96, 80, 160), 1), "toy": ((48, 48, 48), 1)}  # voxels, rounds


def rows(scale: str) -> list[Row]:
    """One row: the full run's time over that with the exit, and that of the encoder alone, which none can beat."""
    shape, rounds = CASES[scale]
    found = measure(rounds, shape=shape)
    return [
        {
            "volume": "x".join(map(str, shape)),
            "windows": found.windows,
            "organs in, %": round(100 * found.touched, 1),
            "exit, %": round(100 * found.exits, 1),
            "of those with organs, %": round(100 * found.lost, 1),
            "speed": Spread.of(found.ratios),
            "at most": Spread.of(found.bounds),
            "voxels with another label": found.differing,
        }
    ]


def measure(rounds: int = 3, *, bundle: Path = BUNDLE, shape: tuple[int, int, int] = SHAPE) -> EarlyExit:
    """Compare the two on one phantom that the network never saw; the first round warms up and is not counted."""
    opened = open_bundle(bundle, torch.device("cpu"))
    image, reference = _phantom(opened, shape)
    early, full = (partial(_scores, opened, exit_early) for exit_early in (True, False))
    runs = {"early": early, "full": full, "encoder": _encode(opened)}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    scores: dict[str, Tensor] = {}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            scores[name], spent = _timed(run, image)
            seconds[name].append(spent)
    timed = {name: each[1:] for name, each in seconds.items()}
    exits, touched = _shares(opened, image, reference)
    labels = [scores[name].argmax(1) for name in ("early", "full")]
    return EarlyExit(
        ratios=tuple(f / e for f, e in zip(timed["full"], timed["early"], strict=True)),
        bounds=tuple(f / e for f, e in zip(timed["full"], timed["encoder"], strict=True)),
        windows=len(exits),
        touched=float(touched.double().mean()),
        exits=float(exits.double().mean()),
        lost=float(exits[touched].double().mean()),
        differing=int((labels[0] != labels[1]).sum()),
    )


def write_trunks(folder: Path, n: int, seed: int = 0) -> None:
    """The data that the bundle was trained on: tall phantoms with the labels of the bundle's organs alone."""
    names = class_names(BUNDLE)
    write_phantoms(folder, n, seed, shape=SHAPE, spacing=SPACING)
    for file in (folder / "labelsTr").iterdir():
        image = nib.load(file)
        save_image(nib.Nifti1Image(_organs(np.asarray(image.dataobj), names), image.affine, image.header), file)
    listing = json.loads((folder / "dataset.json").read_text())
    listing["labels"] = {str(label): name for label, name in names.items()}
    (folder / "dataset.json").write_text(json.dumps(listing, indent=1))


def _organs(labels: np.ndarray, names: dict[int, str]) -> np.ndarray:
    """The phantom's label ids as the bundle's."""
    table = np.zeros(max(ID.values()) + 1, np.uint8)
    for label, name in names.items():
        table[ID[name]] = label
    return table[labels]


def _phantom(bundle: Bundle, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """An image (1, 1, *spatial), preprocessed, and its label (1, 1, *spatial); its grid is the bundle's."""
    phantom = make_phantom(np.random.default_rng(UNSEEN), shape, SPACING)
    volume = MetaTensor(torch.from_numpy(phantom.image).float()[None], affine=phantom.affine)
    image = bundle.preprocess({"image": volume}, start=1)["image"].as_tensor()[None]
    return image, torch.from_numpy(_organs(phantom.labels, bundle.names))[None, None]


@torch.inference_mode()
def _scores(bundle: Bundle, exit_early: bool, image: Tensor) -> Tensor:
    bundle.network.exit_when_absent = exit_early
    return bundle.inferer(image, bundle.network)


def _encode(bundle: Bundle) -> Callable[[Tensor], Tensor]:
    """What every window costs at least: the encoder, the guide and the inferer's own work."""
    network = _guided(bundle)

    def run(x: Tensor) -> Tensor:
        network.cgm(network.encode(x)[-1])
        return x.new_zeros(len(x), len(bundle.names), *x.shape[2:])

    return torch.inference_mode()(partial(bundle.inferer, network=run))


@torch.inference_mode()
def _shares(bundle: Bundle, image: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Of each window whether it exits, and whether it holds a voxel of an organ."""
    network = _guided(bundle)
    exits: list[Tensor] = []
    touched: list[Tensor] = []

    def run(x: Tensor) -> Tensor:
        window, label = x.split(1, dim=1)
        exits.append(network.cgm.absent(network.cgm(network.encode(window)[-1])).all(dim=1))
        touched.append(label.flatten(1).any(dim=1))
        return x.new_zeros(len(x), len(bundle.names), *x.shape[2:])

    bundle.inferer(torch.cat([image, reference], dim=1), run)
    return torch.cat(exits), torch.cat(touched)


def _guided(bundle: Bundle) -> UNet3Plus:
    network = bundle.network
    if not isinstance(network, UNet3Plus) or network.cgm is None:
        raise TypeError(f"{bundle.root}: {type(network).__name__} has no guide; give a bundle of UNet 3+ with cgm.")
    return network


def _timed(run: Callable[[Tensor], Tensor], image: Tensor) -> tuple[Tensor, float]:
    start = perf_counter()
    return run(image), perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, metavar="FOLDER", help="write cases for training there")
    parser.add_argument("-n", type=int, default=75, metavar="N", help="cases, every fifth for validation")
    parser.add_argument("--seed", type=int, default=1, help="of the first of them")
    arguments = parser.parse_args()
    write_trunks(arguments.data, arguments.n, arguments.seed)


if __name__ == "__main__":
    main()
