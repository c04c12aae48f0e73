"""Planning: a data set is checked and measured, and becomes a bundle."""

from lazy_loader import attach_stub

__getattr__, _, __all__ = attach_stub(__name__, __file__)
