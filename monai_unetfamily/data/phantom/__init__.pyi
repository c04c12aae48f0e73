from .anatomy import LABELS as LABELS
from .phantom import make_phantom as make_phantom
from .phantom import write_phantom_images2d as write_phantom_images2d
from .phantom import write_phantoms as write_phantoms
