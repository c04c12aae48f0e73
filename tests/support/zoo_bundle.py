"""A bundle in the style of MONAI's model zoo: JSON, short names, MONAI's own network, inferer and transforms.

What its spleen bundle has, at a size for tests: `$` expressions and imports of what only `monai.bundle run` needs, a
preprocessing that puts channels first in a step of its own, Activationsd, Invertd, AsDiscreted and a saver.
"""

import json
from pathlib import Path
from typing import Any

import torch
from monai.networks.nets import UNet

NETWORK = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "channels": [4, 8, 8], "strides": [2, 2]}
OPTIONS = {"num_res_units": 1, "norm": "batch"}
CONFIG: dict[str, Any] = {
    "imports": ["$import glob", "$import os"],
    "bundle_root": ".",
    "dataset_dir": "./data",
    "datalist": "$sorted(glob.glob(os.path.join(@dataset_dir, '*.nii.gz')))",
    "output_dir": "$@bundle_root + '/eval'",
    "output_dtype": "$numpy.float32",
    "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
    "spacing": 12.0,
    "window": [32, 24, 16],
    "network_def": {"_target_": "UNet", **NETWORK, **OPTIONS},
    "network": "$@network_def.to(@device)",
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", "keys": "image"},
            {"_target_": "EnsureChannelFirstd", "keys": "image"},
            {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
            {
                "_target_": "Spacingd",
                "keys": "image",
                "pixdim": ["@spacing", "@spacing", "$@spacing + 0.5"],
                "mode": "bilinear",
            },
            {
                "_target_": "ScaleIntensityRanged",
                **{"keys": "image", "a_min": -57, "a_max": 164, "b_min": 0.0, "b_max": 1.0, "clip": True},
            },
            {"_target_": "EnsureTyped", "keys": "image"},
        ],
    },
    "dataset": {"_target_": "Dataset", "data": "$[{'image': i} for i in @datalist]", "transform": "@preprocessing"},
    "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
    "inferer": {"_target_": "SlidingWindowInferer", "roi_size": "@window", "sw_batch_size": 4, "overlap": "$1 / 2"},
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "Activationsd", "keys": "pred", "softmax": True},
            {
                "_target_": "Invertd",
                "keys": "pred",
                "transform": "@preprocessing",
                "orig_keys": "image",
                "nearest_interp": False,
                "to_tensor": True,
            },
            {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
            {
                "_target_": "SaveImaged",
                "keys": "pred",
                "output_dir": "@output_dir",
                "output_dtype": "@output_dtype",
                "separate_folder": True,
            },
        ],
    },
    "handlers": [{"_target_": "StatsHandler", "iteration_log": False}],
    "evaluator": {
        "_target_": "SupervisedEvaluator",
        "device": "@device",
        "val_data_loader": "@dataloader",
        "network": "@network",
        "inferer": "@inferer",
        "postprocessing": "@postprocessing",
        "val_handlers": "@handlers",
    },
    "checkpointloader": {
        "_target_": "CheckpointLoader",
        "load_path": "$@bundle_root + '/models/model.pt'",
        "load_dict": {"model": "@network"},
    },
    "initialize": ["$monai.utils.set_determinism(seed=0)", "$@checkpointloader(@evaluator)"],
    "run": ["$@evaluator.run()"],
}
IMAGE = {"type": "image", "format": "hounsfield", "num_channels": 1, "spatial_shape": [32, 24, 16], "dtype": "float32"}
METADATA: dict[str, Any] = {
    "version": "0.1.0",
    "monai_version": "1.6.1",
    "optional_packages_version": {"nibabel": "5.4.2"},
    "task": "Decathlon spleen segmentation",
    "description": "A network with random weights, for tests.",
    "intended_use": "This is an example, not to be used for diagnostic purposes",
    "network_data_format": {
        "inputs": {
            "image": IMAGE
            | {"modality": "CT", "value_range": [0, 1], "is_patch_data": True, "channel_def": {"0": "image"}}
        },
        "outputs": {
            "pred": IMAGE | {"format": "segmentation", "channel_def": {"0": "background", "1": "spleen"}},
        },
    },
}


def write_zoo_bundle(root: Path, seed: int = 0) -> Path:
    """Write the bundle, with random weights, into a new folder; return it."""
    for folder in ("configs", "models", "docs"):
        (root / folder).mkdir(parents=True)
    (root / "configs/inference.json").write_text(json.dumps(CONFIG, indent=4))
    (root / "configs/metadata.json").write_text(json.dumps(METADATA, indent=4))
    (root / "docs/README.md").write_text("# Spleen, at random\n")
    (root / "LICENSE").write_text("                Apache License\n          Version 2.0, January 2004\n")
    torch.manual_seed(seed)
    torch.save(UNet(**NETWORK, **OPTIONS).state_dict(), root / "models/model.pt")  # type: ignore[arg-type]
    return root
