"""Training: a bundle's MONAI workflow with a time budget, a history and a validation."""

from lazy_loader import attach_stub

__getattr__, _, __all__ = attach_stub(__name__, __file__)
