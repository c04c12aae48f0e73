"""From a bundle and one image to labels on the image's own grid."""

from lazy_loader import attach_stub

__getattr__, _, __all__ = attach_stub(__name__, __file__)
