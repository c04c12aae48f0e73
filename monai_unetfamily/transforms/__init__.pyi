from .image_readers import Image2DReader as Image2DReader
from .image_readers import Image2DWriter as Image2DWriter
from .image_readers import LabelImage2DReader as LabelImage2DReader
from .stack_slices import StackSlicesd as StackSlicesd
