from .image_readers import LabelPictureReader as LabelPictureReader
from .image_readers import PictureReader as PictureReader
from .image_readers import PictureWriter as PictureWriter
from .stack_slices import StackSlicesd as StackSlicesd
