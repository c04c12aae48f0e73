"""How bundles and phantoms become small enough for tests; torch and MONAI are loaded only where they are needed."""

import json
from pathlib import Path

PHANTOM_SHAPE = (32, 26, 16)  # voxels of 10 x 10 x 12.5 mm: a whole abdomen in a blink
SMALLER = {
    "spacing: [5.0, 5.0, 5.0]": "spacing: [12.0, 12.0, 12.0]",
    "roi_size: [64, 56, 40]": "roi_size: [24, 24, 16]",
    "roi_size: [128, 160]": "roi_size: [32, 24]",
    "epoch_batches: 24": "epoch_batches: 2",
    "epoch_batches: 38": "epoch_batches: 4",
}


def shrink(bundle: Path, patch: tuple[int, ...] = (24, 24, 12)) -> Path:
    from monai_unetfamily.bundles import METADATA

    file = bundle / "configs" / METADATA
    metadata = json.loads(file.read_text())
    for network in metadata["networks"].values():
        network["features"] = [4, 8, 8]
    metadata["network_data_format"]["inputs"]["image"]["spatial_shape"] = list(patch)
    file.write_text(json.dumps(metadata))
    for config in (bundle / "configs").glob("*.yaml"):
        text = config.read_text()
        for large, small in SMALLER.items():
            text = text.replace(large, small)
        config.write_text(text)
    return bundle


def weigh(bundle: Path) -> Path:
    import torch
    from monai.bundle import ConfigParser

    from monai_unetfamily.bundles import METADATA, WEIGHTS
    from monai_unetfamily.handlers import save_atomically

    torch.manual_seed(0)
    parser = ConfigParser()
    parser.read_meta(bundle / "configs" / METADATA)
    network = parser.get_parsed_content("_meta_#network")
    (bundle / "models").mkdir(exist_ok=True)
    save_atomically(network.state_dict(), bundle / "models" / WEIGHTS)
    return bundle
