"""`unetfamily demo`: the shipped bundles on phantoms and on the MNI152 template."""

from lazy_loader import attach_stub

__getattr__, _, __all__ = attach_stub(__name__, __file__)
