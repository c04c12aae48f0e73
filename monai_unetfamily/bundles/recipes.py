"""What a train config may name, say and write to without being trusted: the parts of recipes like the shipped ones.

To what prediction allows (`allowed.py`) come MONAI's random transforms, data sets, engines and handlers, torch's
optimizers, schedules and samplers, and this package's own steps. Few of them touch files: `PLACES` has them all, and
what they are given must lie in the bundle or be what the user gave. A recipe's expressions call methods of such parts;
these stand here word for word, so that there is nothing to take apart.
"""

from collections.abc import Mapping
from functools import cache

from monai_unetfamily.bundles.allowed import full_name, identities, named, spelled

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
_OTHERS = {
    "monai.data.dataloader": "DataLoader",
    "monai.data.dataset": "CacheDataset Dataset",
    "monai.engines.evaluator": "SupervisedEvaluator",
    "monai.engines.trainer": "SupervisedTrainer",
    "monai.handlers.lr_schedule_handler": "LrScheduleHandler",
    "monai.handlers.mean_dice": "MeanDice",
    "monai.handlers.stats_handler": "StatsHandler",
    "monai.handlers.tensorboard_handlers": "TensorBoardStatsHandler",
    "monai.handlers.validation_handler": "ValidationHandler",
    "monai_unetfamily.bundles.checkpoint": "AtomicCheckpoint BestWeights",
    "monai_unetfamily.bundles.epochs": "SeededEpochs",
    "monai_unetfamily.bundles.loading": "worker_processes",  # a function, as the next and load_cases
    "monai_unetfamily.bundles.preprocessed": "OpenPreprocessedd preprocess",
    "monai_unetfamily.bundles.slices": "StackSlicesd",
    "monai_unetfamily.inference.precision": "MixedPrecisionInferer",
    "monai_unetfamily.volumes.cases": "load_cases",
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
    "monai_unetfamily.bundles.checkpoint.AtomicCheckpoint": ("folder",),
    "monai_unetfamily.bundles.checkpoint.BestWeights": ("folder",),
    "monai_unetfamily.bundles.preprocessed.preprocess": ("cache_dir",),
    "monai_unetfamily.volumes.cases.load_cases": ("dataset_dir",),
}
CASES: Mapping[str, str] = {  # what reads the files that its cases name: the argument, which holds what LISTERS give
    "monai.data.dataset.CacheDataset": "data",
    "monai.data.dataset.Dataset": "data",
    "monai_unetfamily.bundles.preprocessed.preprocess": "cases",
}
LISTERS = ("monai_unetfamily.bundles.preprocessed.preprocess", "monai_unetfamily.volumes.cases.load_cases")


def recipe_name(target: str) -> str | None:
    """The full name of what a `_target_` of a train config stands for, where that may be named, else None.

    >>> recipe_name("RandFlipd"), recipe_name("torch.optim.SGD"), recipe_name("UNet")
    ('monai.transforms.spatial.dictionary.RandFlipd', 'torch.optim.SGD', 'monai.networks.nets.unet.UNet')
    >>> recipe_name("torch.os.system"), recipe_name("CheckpointSaver"), recipe_name("RandLambdad")
    (None, None, None)
    """
    return full_name(target) or (target if target in spelled(_TORCH) else named(target, _targets()))


def recipe_names() -> list[str]:
    """Full names of all that a train config's `_target_` may name besides what prediction allows.

    >>> "torch.optim.AdamW" in recipe_names()
    True
    """
    random = {
        f"monai.transforms.{folder}.dictionary": " ".join(f"{name}d" for name in names.split())
        for folder, names in _RANDOM.items()
    }
    return [name for table in (random, _OTHERS, _TORCH) for name in spelled(table)]


@cache
def _targets() -> dict[int, str]:
    return identities([name for name in recipe_names() if not name.startswith("torch.")])
