"""The algorithm, where BundleGen looks for it."""

from monai_unetfamily.training.auto3dseg.algorithm import UnetfamilyAlgo

__all__ = ["UnetfamilyAlgo"]
