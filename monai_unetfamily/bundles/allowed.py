"""What a bundle may name by `_target_` without being trusted: a literal list, of nothing that runs what it is given.

On it are MONAI's deterministic transforms, its networks that load no weights by themselves, inferers and losses, and
this package's own. Not on it: Lambda and its like; what names a function or a class of another library (CuCIM,
TorchVision, TorchIO, ImageFilter, PatchInferer); what writes files, prints, waits or downloads.
"""

import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from types import ModuleType

from monai.bundle import ComponentLocator

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
    "monai_unetfamily.inference.inferer": "WindowInferer",
    "monai_unetfamily.losses.guided": "GuidedLoss",
    "monai_unetfamily.losses.hybrid": "HybridLoss",
    "monai_unetfamily.losses.labelled": "LabelledVoxelsLoss",
    "monai_unetfamily.losses.supervised": "WeightedHeadsLoss",
    "monai_unetfamily.nets.fcn": "SkipFCN",
    "monai_unetfamily.nets.registry": "create_network",  # the one function
    "monai_unetfamily.nets.unet": "PlainUNet",
    "monai_unetfamily.nets.unet3plus": "UNet3Plus",
    "monai_unetfamily.nets.unetplusplus": "UNetPlusPlus",
}
_READERS = {  # what LoadImage may be told to read with: by name alone it would call any function
    "monai.data.image_reader": "ITKReader NibabelReader NrrdReader PILReader PydicomReader",
    "monai_unetfamily.volumes.readers": "LabelPictureReader PictureReader",
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
