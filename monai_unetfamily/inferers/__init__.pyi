from .mixed_precision import MixedPrecisionInferer as MixedPrecisionInferer
from .slabs import Slab as Slab
from .sliding_window import WindowInferer as WindowInferer
