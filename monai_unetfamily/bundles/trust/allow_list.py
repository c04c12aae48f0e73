"""The names that an untrusted bundle may use, for prediction and for training."""

import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from types import ModuleType

from monai.bundle import ComponentLocator

# What a bundle may name by `_target_` without being trusted: a literal list, of nothing that runs what it is given.
#
# On it are MONAI's deterministic transforms, its networks that load no weights by themselves, inferers and losses,
# and this package's own. Not on it: Lambda and its like; what names a function or a class of another library (CuCIM,
# TorchVision, TorchIO, ImageFilter, PatchInferer); what writes files, prints, waits or downloads.


_TRANSFORMS = {  # folder of monai.transforms: those that are there for arrays, and with a final d for dictionaries
    "croppad": "BorderPad CenterScaleCrop CenterSpatialCrop CropForeground DivisiblePad ResizeWithPadOrCrop "
    "SpatialCrop SpatialPad",
    "intensity": "AdjustContrast ClipIntensityPercentiles GaussianSharpen GaussianSmooth HistogramNormalize "
    "MaskIntensity MedianSmooth NormalizeIntensity SavitzkyGolaySmooth ScaleIntensity ScaleIntensityRange "
    "ScaleIntensityRangePercentiles ShiftIntensity StdShiftIntensity ThresholdIntensity",
    "io": "LoadImage",
    "post": "Activations AsDiscrete FillHoles Invert KeepLargestConnectedComponent LabelFilter LabelToContour "
    "MeanEnsemble RemoveSmallObjects VoteEnsemble",
    "spatial": "Affine Flip Orientation ResampleToMatch Resize Rotate Rotate90 Spacing SpatialResample Zoom",
    "utility": "AddCoordinateChannels AsChannelLast CastToType ConvertToMultiChannelBasedOnBratsClasses "
    "EnsureChannelFirst EnsureType Identity LabelToMask RemoveRepeatedChannel RepeatChannel SplitDim SqueezeDim "
    "ToDevice ToNumpy ToTensor Transpose",
}
_OTHERS = {  # module: classes
    "monai.transforms.compose": "Compose",
    "monai.transforms.intensity.array": "ScaleIntensityFixedMean",
    "monai.transforms.utility.dictionary": "ConcatItemsd CopyItemsd DeleteItemsd FlattenSubKeysd MapLabelValued "
    "SelectItemsd",
    "monai.networks.nets.attentionunet": "AttentionUnet",
    "monai.networks.nets.basic_unet": "BasicUNet",
    "monai.networks.nets.basic_unetplusplus": "BasicUNetPlusPlus",
    "monai.networks.nets.dynunet": "DynUNet",
    "monai.networks.nets.highresnet": "HighResNet",
    "monai.networks.nets.mednext": "MedNeXt",
    "monai.networks.nets.segresnet": "SegResNet SegResNetVAE",
    "monai.networks.nets.segresnet_ds": "SegResNetDS SegResNetDS2",
    "monai.networks.nets.swin_unetr": "SwinUNETR",
    "monai.networks.nets.unet": "UNet",
    "monai.networks.nets.unetr": "UNETR",
    "monai.networks.nets.vnet": "VNet",
    "monai.inferers.inferer": "SimpleInferer SliceInferer SlidingWindowInferer SlidingWindowInfererAdapt",
    "monai.losses.dice": "DiceCELoss DiceFocalLoss DiceLoss GeneralizedDiceFocalLoss GeneralizedDiceLoss",
    "monai.losses.ds_loss": "DeepSupervisionLoss",
    "monai.losses.focal_loss": "FocalLoss",
    "monai.losses.tversky": "TverskyLoss",
    "monai_unetfamily.inferers": "WindowInferer",
    "monai_unetfamily.losses": "GuidedLoss HybridLoss LabelledVoxelsLoss WeightedHeadsLoss",
    "monai_unetfamily.nets": "PlainUNet SkipFCN UNet3Plus UNetPlusPlus create_network",  # the one function
}
_READERS = {  # what LoadImage may be told to read with: by name alone it would call any function
    "monai.data.image_reader": "ITKReader NibabelReader NrrdReader PILReader PydicomReader",
    "monai_unetfamily.transforms": "Image2DReader LabelImage2DReader",
}
_ROOTS = ("monai", "monai_unetfamily")


def full_name(target: str) -> str | None:
    """The full name of what a `_target_` stands for, where that is on the list, else None; imports nothing by it.

    >>> full_name("UNet"), full_name("monai.transforms.EnsureTyped")
    ('monai.networks.nets.unet.UNet', 'monai.transforms.utility.dictionary.EnsureTyped')
    >>> full_name("monai.utils.run_cmd"), full_name("torch.os.system"), full_name("antigravity")
    (None, None, None)
    """
    return named(target, _targets())


def named(target: str, table: Mapping[int, str]) -> str | None:
    """The same by a table of `identities`."""
    modules = locator().get_component_module_name(target)  # of a short name, as MONAI looks it up
    module = modules[0] if isinstance(modules, list) else modules
    return table.get(id(_loaded(f"{module}.{target}" if module else target)))


def full_reader_name(reader: str) -> str | None:
    """The same of a reader of images.

    >>> full_reader_name("NibabelReader"), full_reader_name("os.system")
    ('monai.data.image_reader.NibabelReader', None)
    """
    return _readers().get(id(_loaded(reader if "." in reader else f"monai.data.{reader}")))


@cache
def locator() -> ComponentLocator:
    """MONAI's table of short names, made once all that is allowed is loaded."""
    _targets()
    return ComponentLocator()


def allowed_names() -> list[str]:
    """Full names of all that a `_target_` may name.

    >>> "monai.transforms.post.dictionary.AsDiscreted" in allowed_names()
    True
    """
    for_arrays = {f"monai.transforms.{folder}.array": names for folder, names in _TRANSFORMS.items()}
    for_dictionaries = {
        f"monai.transforms.{folder}.dictionary": " ".join(f"{name}d" for name in names.split())
        for folder, names in _TRANSFORMS.items()
    }
    return [name for table in (for_arrays, for_dictionaries, _OTHERS) for name in spelled(table)]


def spelled(table: Mapping[str, str]) -> list[str]:
    """Full names of a table of modules and what is allowed of each."""
    return [f"{module}.{name}" for module, names in table.items() for name in names.split()]


@cache
def _targets() -> dict[int, str]:
    return identities(allowed_names())


@cache
def _readers() -> dict[int, str]:
    return identities(spelled(_READERS))


def identities(names: Sequence[str]) -> dict[int, str]:
    """Identity of what is named -> its full name; without what this version of MONAI lacks."""
    for module in {name.rpartition(".")[0] for name in names if name.startswith("monai_unetfamily.")}:
        import_module(module)
    found = {name: _loaded(name) for name in names}
    return {id(each): name for name, each in found.items() if each is not None}


def _loaded(path: str) -> object:
    """What a dotted path leads to through modules of MONAI and this package that are loaded; nothing is imported."""
    head, *rest = path.split(".")
    found: object = sys.modules.get(head) if head in _ROOTS else None
    for part in rest:
        ours = isinstance(found, ModuleType) and found.__name__.split(".")[0] in _ROOTS
        found = getattr(found, part, None) if ours else None
    return found


# What a train config may name, say and write to without being trusted: the parts of recipes like the shipped ones.
#
# To what prediction allows come MONAI's random transforms, data sets, engines and handlers, torch's
# optimizers, schedules and samplers, and this package's own steps. Few of them touch files: `PLACES` has them all,
# and what they are given must lie in the bundle or be what the user gave. A recipe's expressions call methods of such
# parts; these stand here word for word, so that there is nothing to take apart.

_RANDOM = {  # folder of monai.transforms: those of dictionaries, without their final d
    "croppad": "RandCropByLabelClasses RandCropByPosNegLabel RandScaleCrop RandSpatialCrop RandSpatialCropSamples "
    "RandWeightedCrop",
    "intensity": "RandAdjustContrast RandBiasField RandCoarseDropout RandCoarseShuffle RandGaussianNoise "
    "RandGaussianSharpen RandGaussianSmooth RandGibbsNoise RandHistogramShift RandKSpaceSpikeNoise RandRicianNoise "
    "RandScaleIntensity RandScaleIntensityFixedMean RandShiftIntensity RandStdShiftIntensity",
    "spatial": "Rand2DElastic Rand3DElastic RandAffine RandAxisFlip RandFlip RandGridDistortion RandRotate "
    "RandRotate90 RandSimulateLowResolution RandZoom",
    "utility": "ClassesToIndices FgBgToIndices",
}
_TRAINING = {
    "monai.data.dataloader": "DataLoader",
    "monai.data.dataset": "CacheDataset Dataset",
    "monai.engines.evaluator": "SupervisedEvaluator",
    "monai.engines.trainer": "SupervisedTrainer",
    "monai.handlers.lr_schedule_handler": "LrScheduleHandler",
    "monai.handlers.mean_dice": "MeanDice",
    "monai.handlers.stats_handler": "StatsHandler",
    "monai.handlers.tensorboard_handlers": "TensorBoardStatsHandler",
    "monai.handlers.validation_handler": "ValidationHandler",
    "monai_unetfamily.data": "OpenPreprocessedd load_cases preprocess worker_processes",  # the last three are functions
    "monai_unetfamily.handlers": "AtomicCheckpoint BestWeights SeededEpochs",
    "monai_unetfamily.inferers": "MixedPrecisionInferer",
    "monai_unetfamily.transforms": "StackSlicesd",
}
_TORCH = {  # by these names alone
    "torch.optim": "Adam AdamW NAdam RAdam RMSprop SGD",
    "torch.optim.lr_scheduler": "ConstantLR CosineAnnealingLR CosineAnnealingWarmRestarts ExponentialLR LinearLR "
    "MultiStepLR OneCycleLR PolynomialLR SequentialLR StepLR",
    "torch.utils.data": "RandomSampler SequentialSampler WeightedRandomSampler",
}
EXPRESSIONS = frozenset(  # with "#" wherever MONAI takes "::" for the same
    {
        "$import torch",
        "$import monai",
        "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "$monai.utils.set_determinism(seed=@seed)",
        "$monai.handlers.from_engine(['loss'], first=True)",
        "$monai.handlers.from_engine(['pred', 'label'])",
        "$@network_def.to(@device)",
        "$@network.parameters()",
        "$@device.type == 'cuda'",
        "$lambda label, ignored=@ignore_label: label != ignored",
        "$@validate#listed[#max(1, len(@validate#listed) // @val_cases)][:@val_cases]",
        "$@checkpoint.restore(@train#trainer) if @resume else None",
        "$@train#trainer.run()",
    }
)
PLACES: Mapping[str, tuple[str, ...]] = {  # what writes or reads by itself: its arguments that are folders
    "monai.handlers.tensorboard_handlers.TensorBoardStatsHandler": ("log_dir",),
    "monai_unetfamily.handlers.AtomicCheckpoint": ("folder",),
    "monai_unetfamily.handlers.BestWeights": ("folder",),
    "monai_unetfamily.data.preprocess": ("cache_dir",),
    "monai_unetfamily.data.load_cases": ("dataset_dir",),
}
CASES: Mapping[str, str] = {  # what reads the files that its cases name: the argument, which holds what LISTERS give
    "monai.data.dataset.CacheDataset": "data",
    "monai.data.dataset.Dataset": "data",
    "monai_unetfamily.data.preprocess": "cases",
}
LISTERS = ("monai_unetfamily.data.preprocess", "monai_unetfamily.data.load_cases")


def recipe_name(target: str) -> str | None:
    """The full name of what a `_target_` of a train config stands for, where that may be named, else None.

    >>> recipe_name("RandFlipd"), recipe_name("torch.optim.SGD"), recipe_name("UNet")
    ('monai.transforms.spatial.dictionary.RandFlipd', 'torch.optim.SGD', 'monai.networks.nets.unet.UNet')
    >>> recipe_name("torch.os.system"), recipe_name("CheckpointSaver"), recipe_name("RandLambdad")
    (None, None, None)
    """
    return full_name(target) or (target if target in spelled(_TORCH) else named(target, _training_targets()))


def recipe_names() -> list[str]:
    """Full names of all that a train config's `_target_` may name besides what prediction allows.

    >>> "torch.optim.AdamW" in recipe_names()
    True
    """
    random = {
        f"monai.transforms.{folder}.dictionary": " ".join(f"{name}d" for name in names.split())
        for folder, names in _RANDOM.items()
    }
    return [name for table in (random, _TRAINING, _TORCH) for name in spelled(table)]


@cache
def _training_targets() -> dict[int, str]:
    return identities([name for name in recipe_names() if not name.startswith("torch.")])
