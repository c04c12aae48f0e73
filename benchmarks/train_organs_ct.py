"""Train the bundle of the early exit's benchmark: train_organs_ct.py BUNDLE FOLDER STAGE MINUTES.

FOLDER is the data set that `benchmarks.early_exit` writes. STAGE "guide" trains encoder and guide on presence alone, a
twelfth of a whole step's time; then "decoder" trains the rest on the encoder as it is, so that the guide
stays; `unetfamily calibrate` sets the thresholds. Each goes on from the bundle's weights, where it has some.
"""

import sys
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from monai.bundle import ConfigWorkflow
from torch import Tensor

from monai_unetfamily.bundles import WEIGHTS, config_file
from monai_unetfamily.bundles.weights import load_weights
from monai_unetfamily.handlers import save_atomically

RATE = 0.002


def main(bundle: Path, dataset: str, stage: str, minutes: float) -> None:
    config = str(config_file(bundle, "train"))
    workflow = ConfigWorkflow(config, bundle_root=str(bundle), dataset_dir=dataset, logging_file=False)
    workflow.parser["device"] = torch.device("cpu")
    workflow.initialize()
    network, loss, loader = map(workflow.parser.get_parsed_content, ("network", "loss", "train#dataloader"))
    file = bundle / "models" / WEIGHTS
    file.parent.mkdir(exist_ok=True)
    if file.exists():
        load_weights(network, file)
    weights, step = {"guide": guide_stage, "decoder": decoder_stage}[stage](network.train(), loss)
    optimizer = torch.optim.AdamW(weights, RATE, weight_decay=1e-4)
    for left, batch in batches(loader, 60 * minutes):
        optimizer.param_groups[0]["lr"] = RATE * max(left, 0.02) ** 0.9
        optimizer.zero_grad()
        step(batch["image"], batch["label"]).backward()
        optimizer.step()
    save_atomically(network.state_dict(), file)


def batches(loader: Any, seconds: float) -> Iterator[tuple[float, dict[str, Tensor]]]:
    """Batches, and the share of the time that is left, until there is none."""
    start = monotonic()
    for batch in chain.from_iterable(repeat(loader)):
        left = 1 - (monotonic() - start) / seconds
        if left <= 0:
            return
        yield left, batch


def guide_stage(network: Any, loss: Any) -> tuple[list[Tensor], Callable[[Tensor, Tensor], Tensor]]:
    weights = [*network.En.parameters(), *network.cgm.parameters()]
    return weights, lambda image, label: loss.presence_loss(network.cgm(network.encode(image)[-1]), label)


def decoder_stage(network: Any, loss: Any) -> tuple[list[Tensor], Callable[[Tensor, Tensor], Tensor]]:
    def step(image: Tensor, label: Tensor) -> Tensor:
        with torch.no_grad():
            En = network.encode(image)
        return loss.segmentation_loss(network.side_outputs(network.decode(En)), label)

    parts = (network.De, network.C, network.head, network.auxiliary_heads)
    return [p for part in parts for p in part.parameters()], step


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4]))
