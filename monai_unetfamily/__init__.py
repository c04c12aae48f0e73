"""The U-Net family for MONAI.

Public names are imported when they are first used, so that `import monai_unetfamily` itself loads neither
torch nor monai nor numpy. `dir()` lists the names that are loaded, `__all__` all names; `__init__.pyi` has their types.

>>> import monai_unetfamily as uf
>>> uf.list_networks()
['fcn32s', 'fcn16s', 'fcn8s', 'unet', 'unet_e', 'unet_plus', 'unetplusplus', 'unet3plus']
"""

import os
from importlib import import_module

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # MLflow, with the extra `tracking`, would report its use

__version__ = "0.1.0"

_HOME = {
    "GuidedLoss": "losses",
    "HybridLoss": "losses",
    "LabelledVoxelsLoss": "losses",
    "PlainUNet": "nets",
    "SkipFCN": "nets",
    "UNet3Plus": "nets",
    "UNetPlusPlus": "nets",
    "WeightedHeadsLoss": "losses",
    "WindowInferer": "inference.inferer",
    "create_network": "nets",
    "evaluate_folders": "evaluation",
    "find_bundle": "bundles.metadata",
    "find_studies": "volumes.studies",
    "list_networks": "nets",
    "open_bundle": "bundles.bundle",
    "predict_cohort": "inference.batch",
    "predict_on_cluster": "inference.cluster",
    "predict_volume": "inference.predictor",
    "profile_network": "nets.profiling",
    "save_diagram": "inference.diagram",
    "save_overlay": "inference.report",
    "trace_graph": "nets.diagram",
    "train": "training.run",
    "write_phantoms": "volumes.phantom",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    # No __dir__ lists these names: MONAI's ComponentLocator calls inspect.getmembers, which would import them all.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
