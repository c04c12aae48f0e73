"""Write a plan as the files of a MONAI bundle."""

import json
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from textwrap import wrap
from typing import Any

from monai_unetfamily import __version__
from monai_unetfamily.bundles import METADATA, find_bundle
from monai_unetfamily.data import Facts
from monai_unetfamily.io import atomic_directory, make_directory
from monai_unetfamily.planning.decisions import format_decisions
from monai_unetfamily.planning.fingerprint import Fingerprint, format_fingerprint
from monai_unetfamily.planning.plan import Plan

# Templates of a bundle's files: text with places <<name>> that lines or a word fill.


_PLACE = re.compile(r"<<(\w+)>>")
_ALONE = re.compile(r"( *)<<(\w+)>>")


def fill(template: str, values: Mapping[str, str | Sequence[str]]) -> str:
    """Fill each place: one that is a line by itself with lines of its indentation, perhaps none; others with a word.

    >>> template = "size: <<size>>\\nsteps:\\n  <<steps>>\\n<<rest>>\\n"
    >>> print(fill(template, {"size": "3", "steps": ["- a", "- b"], "rest": []}), end="")
    size: 3
    steps:
      - a
      - b

    Raises:
        KeyError: a place for which there is no value.
    """
    lines = (line for text in template.splitlines() for line in _filled(text, values))
    return "".join(f"{line}\n" for line in lines)


def _filled(line: str, values: Mapping[str, str | Sequence[str]]) -> list[str]:
    if alone := _ALONE.fullmatch(line):
        given = values[alone[2]]
        return [f"{alone[1]}{text}".rstrip() for text in ([given] if isinstance(given, str) else given)]
    return [_PLACE.sub(lambda place: str(values[place[1]]), line)]


# The lines of a bundle's configs that a plan decides; all others are the template's.

Values = dict[str, str | list[str]]

_BOTH = "[image, label]"
_READERS = "monai_unetfamily.transforms.image_readers"
_PICTURES = (
    "\"$[{'image': f} for f in sorted(glob.glob(@dataset_dir + '/*')) "
    "if f.lower().endswith(('.png', '.tif', '.tiff'))]\""
)
_VOLUMES = "\"$[{'image': file} for file in sorted(glob.glob(@dataset_dir + '/*.nii.gz'))]\""
_FILES_A_CHANNEL = (
    "\"$[{{'image': [f.replace('_0000.', '_%04d.' % c) for c in range({})]}} "
    "for f in sorted(glob.glob(@dataset_dir + '/*_0000.nii.gz'))]\""
)
_MOST_PLACES = 10000  # of each class in a case, kept for sampling


def train_values(plan: Plan, fingerprint: Fingerprint) -> Values:
    """What fills the template of the training config."""
    schedule, overlapping = plan.schedule, fingerprint.overlapping
    located = _located(plan)
    cached = "$@train#deterministic_transforms + @train#located_transforms"
    return {
        "crop_size": []
        if plan.slice_axis is None
        else [f"crop_size: {list(plan.crop)}  # the patch, of so many slices"],
        "spacing": _spacing(plan),
        "readers": _readers(fingerprint, ("reader: {}.Image2DReader", "label_reader: {}.LabelImage2DReader")),
        "batch_size": str(plan.batch_size),
        "accumulation": str(plan.accumulation),
        "epoch_batches": str(schedule.epoch_batches),
        "learning_rate": f"{schedule.learning_rate:g}",
        "epochs": str(schedule.epochs),
        "minutes": "null" if schedule.minutes is None else f"{schedule.minutes:g}",
        "ignore_label": str(255 if fingerprint.ignore is None else fingerprint.ignore),
        "val_interval": str(schedule.val_interval),
        "val_cases": str(schedule.val_cases),
        "no_background": ["background: false"] * overlapping,
        "loss": _loss(plan, overlapping),
        "deterministic_transforms": _read(plan, fingerprint, "[image, label]"),
        "located_transforms": [
            "located_transforms:  # of training alone: room for every patch, and where the classes are",
            *(f"  {line}" for line in located),
        ]
        * bool(located),
        "random_transforms": [*_crop(plan), *_changes(plan)],
        "cached_transforms": cached if located else '"@train#deterministic_transforms"',
        "window": _window(plan, overlapping, f"{plan.window.overlap:g}"),
        "discrete": _discrete(overlapping, plan.network.out_channels),
        "without_background": ["include_background: false"] * (not overlapping),
    }


def inference_values(plan: Plan, fingerprint: Fingerprint) -> Values:
    """What fills the template of the inference config."""
    pictures = plan.spacing is None
    what = "a PNG of labels of each picture's size" if pictures else "labels on each input's own grid, header kept"
    return {
        "what": what,
        "spacing": _spacing(plan),
        "reader": _readers(fingerprint, ("reader: {}.Image2DReader",)),
        "preprocessing": _read(plan, fingerprint, "image"),
        "overlap": f"{plan.window.overlap:g}",
        "window": _window(plan, fingerprint.overlapping, '"@displayable_configs#overlap"'),
        "postprocessing": _postprocessing(plan, fingerprint),
        "listing": _listing(fingerprint),
    }


def _listing(fingerprint: Fingerprint) -> str:
    """The images of a folder, for MONAI alone."""
    channels = len(fingerprint.channels)
    if fingerprint.layout == "nnU-Net" and channels > 1 and fingerprint.spatial_dims == 3:
        return _FILES_A_CHANNEL.format(channels)
    return _VOLUMES if fingerprint.spatial_dims == 3 else _PICTURES


def _spacing(plan: Plan) -> list[str]:
    if plan.spacing is None:
        return []
    kept = "; 0: as it is" if 0.0 in plan.spacing else ""
    return [f"spacing: {list(plan.spacing)}  # mm{kept}"]


def _readers(fingerprint: Fingerprint, lines: Sequence[str]) -> list[str]:
    if fingerprint.spatial_dims == 3:
        return []
    first, *others = (line.format(_READERS) for line in lines)
    return [f"{first}  # rows and columns as they are", *others]


def _read(plan: Plan, fingerprint: Fingerprint, keys: str) -> list[str]:
    """From files to what the network sees, but for patches."""
    modes = "[bilinear, nearest]" if keys == _BOTH else "bilinear"
    load = "- {{_target_: LoadImaged, keys: {}, ensure_channel_first: true, image_only: true, reader: {}}}"
    ensure = f"- {{_target_: EnsureTyped, keys: {keys}, dtype: float32}}"
    scaling = _scaling(plan, len(fingerprint.channels))
    if plan.spacing is None:
        label = [load.format("label", '"@label_reader"')] if keys == _BOTH else []
        return [load.format("image", '"@reader"'), *label, ensure, *scaling]
    return [
        load.format(keys, "NibabelReader"),
        ensure,
        f"- {{_target_: Orientationd, keys: {keys}, axcodes: RAS, labels: null}}",
        f'- {{_target_: Spacingd, keys: {keys}, pixdim: "@spacing", mode: {modes}}}',
        *scaling,
    ]


def _scaling(plan: Plan, channels: int) -> list[str]:
    scaling, each = plan.scaling, ", channel_wise: true" if channels > 1 else ""
    if scaling.kind == "range":
        limits = f"a_min: {scaling.low:g}, a_max: {scaling.high:g}, b_min: 0, b_max: 1, clip: true"
        return [f"- {{_target_: ScaleIntensityRanged, keys: image, {limits}}}"]
    limits = f"lower: 0.5, upper: 99.5, b_min: 0, b_max: 1, clip: true{each}"
    return [
        f"- {{_target_: ScaleIntensityRangePercentilesd, keys: image, {limits}}}",
        f"- {{_target_: NormalizeIntensityd, keys: image{each}}}",
    ]


def _size(plan: Plan) -> str:
    return '"@patch_size"' if plan.slice_axis is None else '"@crop_size"'


def _located(plan: Plan) -> list[str]:
    """What is kept with a case, once, so that patches are quick to find."""
    if not plan.balanced:
        return []
    places = f"num_classes: {plan.network.out_channels}, max_samples_per_class: {_MOST_PLACES}"
    return [
        *_padding(plan),
        f"- {{_target_: ClassesToIndicesd, keys: label, {places}}}",
    ]


def _padding(plan: Plan) -> list[str]:
    """Around images that are smaller than the patch, and of slices at the ends, which have one neighbour alone."""
    border = [plan.neighbours * (axis == plan.slice_axis) for axis in range(len(plan.crop))]
    repeated = f"- {{_target_: BorderPadd, keys: {_BOTH}, spatial_border: {border}, mode: edge}}  # slices at the ends"
    return [
        *[repeated] * any(border),
        f"- {{_target_: SpatialPadd, keys: {_BOTH}, spatial_size: {_size(plan)}}}",
    ]


def _crop(plan: Plan) -> list[str]:
    if not plan.balanced:
        anywhere = f"roi_size: {_size(plan)}, random_size: false"
        return [*_padding(plan), f"- {{_target_: RandSpatialCropd, keys: {_BOTH}, {anywhere}}}"]
    classes = plan.network.out_channels - 1
    return [
        "- _target_: RandCropByLabelClassesd",
        f"  keys: {_BOTH}",
        "  label_key: label",
        f"  spatial_size: {_size(plan)}",
        f"  ratios: {[classes, *[1] * classes]}  # half of the patches on a class, each class alike",
        f"  num_classes: {classes + 1}",
        "  indices_key: label_cls_indices",
        "  warn: false  # of classes that a case lacks",
        "- {_target_: DeleteItemsd, keys: label_cls_indices}",
    ]


def _changes(plan: Plan) -> list[str]:
    augmentation = plan.augmentation
    flat = len(augmentation.rotation) == 2
    rotation = f"{augmentation.rotation[0]:g}" if flat else str(list(augmentation.rotation))
    flips = [f"- {{_target_: RandFlipd, keys: {_BOTH}, prob: 0.5, spatial_axis: {axis}}}" for axis in plan.mirror_axes]
    contrast = [
        "- {_target_: RandScaleIntensityd, keys: image, factors: 0.2, prob: 0.3}",
        "- {_target_: RandAdjustContrastd, keys: image, gamma: [0.7, 1.5], prob: 0.2}",
    ]
    names = f"keys: image, label_keys: label, slice_axis: {plan.slice_axis}"
    stacked = f"- {{_target_: monai_unetfamily.transforms.StackSlicesd, {names}}}"
    return [
        "- _target_: RandAffined",
        f"  keys: {_BOTH}",
        "  prob: 0.5",
        f"  rotate_range: {rotation}  # radians: 15 degrees",
        f"  scale_range: {list(augmentation.scale)}",
        "  mode: [bilinear, nearest]",
        "  padding_mode: border",
        *flips,
        *contrast * augmentation.contrast,
        f"- {{_target_: RandGaussianNoised, keys: image, std: {augmentation.noise:g}, prob: 0.2}}",
        *[stacked] * (plan.slice_axis is not None),
    ]


def _loss(plan: Plan, overlapping: bool) -> list[str]:
    kind = (
        ["_target_: DiceFocalLoss", "sigmoid: true", "gamma: 0.0"]
        if overlapping
        else ["_target_: DiceCELoss", "to_onehot_y: true", "softmax: true"]
    )
    return [*kind, *["batch: true"] * plan.batch_dice]


def _window(plan: Plan, overlapping: bool, overlap: str) -> list[str]:
    slices = [f"slice_axis: {plan.slice_axis}", f"neighbours: {plan.neighbours}"]
    return [
        *["background: false"] * overlapping,
        f"roi_size: {list(plan.window.size)}",
        f"overlap: {overlap}",
        *slices * (plan.slice_axis is not None),
    ]


def _discrete(overlapping: bool, classes: int) -> list[str]:
    masked = [
        "- _target_: MaskIntensityd  # background in both where there is no label: no class counts it",
        "  keys: [pred, label]",
        "  mask_key: label",
        '  select_fn: "$lambda label, ignored=@ignore_label: label != ignored"',
    ]
    if overlapping:
        return ["- {_target_: AsDiscreted, keys: pred, threshold: 0.5}", *masked]
    one_hot = f"- {{_target_: AsDiscreted, keys: [pred, label], to_onehot: {classes}}}"
    return ["- {_target_: AsDiscreted, keys: pred, argmax: true}", *masked, one_hot]


def _postprocessing(plan: Plan, fingerprint: Fingerprint) -> list[str]:
    picked = "threshold: 0.5" if fingerprint.overlapping else "argmax: true"
    back = 'transform: "@preprocessing", orig_keys: image, nearest_interp: false, to_tensor: true'
    pictures = ["  output_ext: .png", f"  writer: {_READERS}.Image2DWriter"]
    return [
        *[f"- {{_target_: Invertd, keys: pred, {back}}}"] * (plan.spacing is not None),
        f"- {{_target_: AsDiscreted, keys: pred, {picked}}}",
        "- _target_: SaveImaged",
        "  keys: pred",
        '  output_dir: "@output_dir"',
        "  output_postfix: seg",
        *(["  output_dtype: uint8"] if plan.spacing is not None else pictures),
        "  separate_folder: false",
        "  resample: false",
    ]


# The metadata of a planned bundle, with the keys that MONAI's schema asks for.

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


# Write a plan as an ordinary MONAI bundle: configs that people read and change, metadata, a card.

_TEMPLATE = files("monai_unetfamily.planning") / "templates"
_AS_THEY_ARE = ("train.json", "evaluate.yaml", "multi_gpu_train.yaml", "logging.conf")
_WIDTH = 120  # of a line
_PLANNED = "Planned from the data set below, whose files were all checked and measured."


def write_bundle(
    plan: Plan, fingerprint: Fingerprint, output: Path, facts: Facts | None = None, note: str = _PLANNED
) -> None:
    """Write the bundle of a plan into a new folder, whole or not at all.

    Args:
        plan: from `make_plan` of this fingerprint.
        fingerprint: goes with it as `docs/fingerprint.json`.
        output: new folder.
        facts: what the data set says of itself.
        note: of the card, on where the figures come from.

    Raises:
        FileExistsError: the folder is not empty.
        ValueError: label ids with a gap.
        OSError: the folder cannot be written.
    """
    facts = facts or Facts(fingerprint.name, fingerprint.channels, fingerprint.modality, "", "", "")
    texts = {
        f"configs/{METADATA}": metadata_text(plan, fingerprint, facts),
        "configs/train.yaml": fill(_template("train.yaml"), train_values(plan, fingerprint)),
        "configs/inference.yaml": fill(_template("inference.yaml"), inference_values(plan, fingerprint)),
        **{f"configs/{name}": _template(name) for name in _AS_THEY_ARE},
        "docs/README.md": fill(_template("README.md"), _card_values(plan, fingerprint, facts, output.name, note)),
        "docs/fingerprint.json": fingerprint.to_json() + "\n",
        "LICENSE": (find_bundle("phantom_ct") / "LICENSE").read_text(encoding="utf-8"),
    }
    make_directory(output.absolute().parent)
    with atomic_directory(output.absolute()) as directory:
        for name, text in texts.items():
            (directory / name).parent.mkdir(exist_ok=True)
            (directory / name).write_text(text, encoding="utf-8")


def _template(name: str) -> str:
    return (_TEMPLATE / name).read_text(encoding="utf-8")


def _card_values(
    plan: Plan, fingerprint: Fingerprint, facts: Facts, folder: str, note: str
) -> dict[str, str | list[str]]:
    licence = (
        f"Licence of the data: {facts.licence}." if facts.licence else "The data set names no licence: ask for one."
    )
    source = " ".join([f"{facts.name}{f', {facts.reference}' if facts.reference else ''}.", licence])
    return {
        "title": facts.name,
        "description": _sentence(facts.description or f"Segmentation of {', '.join(fingerprint.classes)}"),
        "note": wrap(note, _WIDTH),
        "data": wrap(source, _WIDTH),
        "fingerprint": format_fingerprint(fingerprint).splitlines(),
        "decisions": [
            line
            for decision in format_decisions(plan.decisions).splitlines()
            for line in wrap(decision, _WIDTH, subsequent_indent="  ", break_on_hyphens=False)
        ],
        "folder": folder,
        "minutes": "" if plan.schedule.minutes is None else f" --minutes {plan.schedule.minutes:g}",
    }


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."
