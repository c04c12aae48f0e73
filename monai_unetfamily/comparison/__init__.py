"""Networks trained alike on one data set and compared with their uncertainty."""

from lazy_loader import attach_stub

__getattr__, _, __all__ = attach_stub(__name__, __file__)
