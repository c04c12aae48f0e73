"""The lines of a bundle's configs that a plan decides; all others are the template's."""

from collections.abc import Sequence

from monai_unetfamily.training.planning.fingerprint import Fingerprint
from monai_unetfamily.training.planning.plan import Plan

Values = dict[str, str | list[str]]

_BOTH = "[image, label]"
_READERS = "monai_unetfamily.volumes.readers"
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
        "readers": _readers(fingerprint, ("reader: {}.PictureReader", "label_reader: {}.LabelPictureReader")),
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
        "reader": _readers(fingerprint, ("reader: {}.PictureReader",)),
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
        *_room(plan),
        f"- {{_target_: ClassesToIndicesd, keys: label, {places}}}",
    ]


def _room(plan: Plan) -> list[str]:
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
        return [*_room(plan), f"- {{_target_: RandSpatialCropd, keys: {_BOTH}, {anywhere}}}"]
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
    stacked = f"- {{_target_: monai_unetfamily.bundles.slices.StackSlicesd, {names}}}"
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
    pictures = ["  output_ext: .png", f"  writer: {_READERS}.PictureWriter"]
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
