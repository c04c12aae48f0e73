"""Losses that MONAI does not have; everything else is `monai.losses`."""

from monai_unetfamily.losses.deep_supervision import WeightedHeadsLoss
from monai_unetfamily.losses.guided import GuidedLoss
from monai_unetfamily.losses.hybrid import HybridLoss
from monai_unetfamily.losses.masked import LabelledVoxelsLoss
from monai_unetfamily.losses.ms_ssim import fit_scales, multiscale_ssim

__all__ = ["GuidedLoss", "HybridLoss", "LabelledVoxelsLoss", "WeightedHeadsLoss", "fit_scales", "multiscale_ssim"]
