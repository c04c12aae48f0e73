"""The algorithm, where BundleGen looks for it."""

from monai_unetfamily.integrations import UnetfamilyAlgo

__all__ = ["UnetfamilyAlgo"]
