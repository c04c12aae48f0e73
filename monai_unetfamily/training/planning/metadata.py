"""The metadata of a planned bundle, with the keys that MONAI's schema asks for."""

import json
import re
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from monai_unetfamily import __version__
from monai_unetfamily.training.planning.fingerprint import Fingerprint
from monai_unetfamily.training.planning.plan import Plan
from monai_unetfamily.volumes.cases import Facts

_SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
_FCN = "Long et al.: Fully Convolutional Networks for Semantic Segmentation, CVPR 2015"
_NESTED = (
    "Zhou et al.: UNet++: Redesigning Skip Connections to Exploit Multiscale Features in Image Segmentation, "
    "IEEE TMI 2020"
)
_PAPERS = {
    **dict.fromkeys(("fcn32s", "fcn16s", "fcn8s"), _FCN),
    "unet": "Ronneberger et al.: U-Net: Convolutional Networks for Biomedical Image Segmentation, MICCAI 2015",
    **dict.fromkeys(("unet_e", "unet_plus", "unetplusplus"), _NESTED),
    "unet3plus": "Huang et al.: UNet 3+: A Full-Scale Connected UNet for Medical Image Segmentation, ICASSP 2020",
}
_RULES = (
    "Isensee et al.: nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation, "
    "Nature Methods 2021"
)
_VERSIONS = {"monai_version": "monai", "pytorch_version": "torch", "numpy_version": "numpy"}
_TARGET = "monai_unetfamily.nets.create_network"
_NUMBERS = re.compile(r"\[[\s\d.,-]*\]")


def metadata_text(plan: Plan, fingerprint: Fingerprint, facts: Facts) -> str:
    """`metadata.json` of a planned bundle."""
    prose = Facts._make(each if isinstance(each, tuple) else _prose(each) for each in facts)
    text = json.dumps(_metadata(plan, fingerprint, prose), indent=2, ensure_ascii=False)
    return _NUMBERS.sub(_on_one_line, text) + "\n"


def output_names(fingerprint: Fingerprint) -> dict[int, str]:
    """Channel -> name of the network's output; 0 is the background where there is one.

    Raises:
        ValueError: ids with a gap, for which a network has no channel.
    """
    names = dict(sorted(fingerprint.labels.items()))
    first = 1 if fingerprint.overlapping else 0
    if list(names) != list(range(first, first + len(names))):
        raise ValueError(
            f"{fingerprint.name}: has labels {list(names)}; ids from {first} up without a gap are allowed, since each "
            "is a channel of the network: renumber the label files and the table."
        )
    return {label - first: name for label, name in names.items()}


def _metadata(plan: Plan, fingerprint: Fingerprint, facts: Facts) -> dict[str, Any]:
    network, outputs = plan.network, output_names(fingerprint)
    return {
        "schema": _SCHEMA,
        "version": "0.1.0",
        "changelog": {"0.1.0": f"planned from {len(fingerprint.cases)} cases"},
        **{key: version(package).split("+")[0] for key, package in _VERSIONS.items()},
        "required_packages_version": _packages(plan),
        "name": facts.name,
        "task": f"Segmentation of {', '.join(fingerprint.classes)}",
        "description": facts.description or f"{network.name}, planned by the rules of `unetfamily plan`.",
        "authors": "who planned and trained it",
        "copyright": "Copyright (c) who planned and trained it",
        "data_source": ", ".join(text for text in (facts.name, facts.reference, facts.licence) if text),
        "data_type": "nifti" if plan.spacing else "png",
        "image_classes": _counted(len(fingerprint.channels), "channel", fingerprint.channels),
        "label_classes": ", ".join(f"{label} {name}" for label, name in sorted(fingerprint.labels.items())),
        "pred_classes": f"a probability each: {', '.join(outputs.values())}",
        "intended_use": "Research, not diagnosis.",
        "references": [_PAPERS[network.name], _RULES],
        **({"mirror_axes": list(plan.mirror_axes)} if plan.mirror_axes else {}),
        "network": f"@_meta_#networks#{network.name}",
        "networks": {network.name: {"_target_": _TARGET, "name": network.name, **network.arguments}},
        "network_data_format": {
            "inputs": {"image": _image(plan, fingerprint)},
            "outputs": {"pred": _pred(plan, outputs)},
        },
    }


def _prose(text: str) -> str:
    """Words that MONAI's configs do not resolve: a blank before what would be code.

    >>> _prose("$import os"), _prose("CT")
    (' $import os', 'CT')
    """
    return f" {text}" if text.startswith(("$", "@", "%")) else text


def _counted(number: int, what: str, names: Sequence[str]) -> str:
    return f"{number} {what}{'s' * (number != 1)}: {', '.join(names)}"


def _packages(plan: Plan) -> dict[str, str]:
    reader = "nibabel" if plan.spacing else "pillow"
    versions = {package: version(package) for package in (reader, "pytorch-ignite")}
    return {**versions, "monai_unetfamily": __version__}


def _image(plan: Plan, fingerprint: Fingerprint) -> dict[str, Any]:
    eight_bits = plan.spacing is None and plan.scaling.kind == "range"
    seen = _seen(plan.neighbours, fingerprint.channels)
    return {
        "type": "image",
        "format": "magnitude",
        "modality": fingerprint.modality or "n/a",
        "num_channels": len(seen),
        **({"neighbours": plan.neighbours} if plan.neighbours else {}),
        "spatial_shape": list(plan.patch),
        "dtype": "float32",
        "value_range": [plan.scaling.low, plan.scaling.high] if eight_bits else [],
        "is_patch_data": True,
        "channel_def": {str(channel): name for channel, name in enumerate(seen)},
    }


def _seen(neighbours: int, channels: Sequence[str]) -> list[str]:
    """Names of all that the network sees, slice by slice.

    >>> _seen(0, ["CT"]), _seen(1, ["T2", "ADC"])
    (['CT'], ['T2, slice -1', 'ADC, slice -1', 'T2', 'ADC', 'T2, slice +1', 'ADC, slice +1'])
    """
    shifts = range(-neighbours, neighbours + 1)
    return [f"{name}, slice {shift:+}" if shift else name for shift in shifts for name in channels]


def _pred(plan: Plan, outputs: dict[int, str]) -> dict[str, Any]:
    return {
        "type": "image",
        "format": "segmentation",
        "num_channels": len(outputs),
        "spatial_shape": list(plan.patch),
        "dtype": "float32",
        "value_range": [0, 1],
        "is_patch_data": True,
        "channel_def": {str(channel): name for channel, name in outputs.items()},
    }


def _on_one_line(numbers: re.Match[str]) -> str:
    """A list of numbers as people write it.

    >>> _NUMBERS.sub(_on_one_line, '[\\n  2,\\n  1\\n]')
    '[2, 1]'
    """
    return " ".join(numbers[0].split()).replace("[ ", "[").replace(" ]", "]")
