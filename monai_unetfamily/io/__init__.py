"""Images, label maps and class scores: read, validated and written, geometry and header kept."""

from lazy_loader import attach_stub

__getattr__, _, __all__ = attach_stub(__name__, __file__)
