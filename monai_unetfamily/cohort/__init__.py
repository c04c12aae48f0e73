"""Prediction of many images: resumable, shared between processes, recorded case by case."""

from lazy_loader import attach_stub

__getattr__, _, __all__ = attach_stub(__name__, __file__)
