"""The prediction of a fold, where BundleAlgo looks for it."""

from monai_unetfamily.integrations import InferClass

__all__ = ["InferClass"]
