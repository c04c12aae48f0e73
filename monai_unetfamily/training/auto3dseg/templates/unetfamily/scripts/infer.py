"""The prediction of a fold, where BundleAlgo looks for it."""

from monai_unetfamily.training.auto3dseg.infer import InferClass

__all__ = ["InferClass"]
