"""DICOM: series read as volumes, DICOM Segmentations written."""

from lazy_loader import attach_stub

__getattr__, _, __all__ = attach_stub(__name__, __file__)
