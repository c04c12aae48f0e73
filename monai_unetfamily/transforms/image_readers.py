"""Pictures through MONAI's LoadImaged and SaveImaged, rows and columns as they are.

MONAI's own reader and writer of pictures swap the two (`reverse_indexing`), and its LoadImaged tries every other
reader where one refuses a file.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import NdarrayOrTensor, PathLike
from monai.data.image_reader import ImageReader
from monai.data.image_writer import ImageWriter
from monai.utils import convert_to_numpy, ensure_tuple
from numpy.typing import NDArray

from monai_unetfamily.io import is_image2d, read_image2d, read_label_image2d, write_label_image2d


class Image2DReader(ImageReader):
    """Read a PNG or TIFF for LoadImaged(ensure_channel_first=True): (1, rows, columns), or (3, rows, columns).

    Raises:
        ValueError, OSError: what `read_image2d` refuses, and a file that is no picture.

    >>> from monai.transforms import LoadImage
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_label_image2d(np.zeros((4, 6), int), Path(folder) / "xray.png")
    ...     LoadImage(Image2DReader, ensure_channel_first=True)(Path(folder) / "xray.png").shape
    torch.Size([1, 4, 6])
    """

    _values = staticmethod(read_image2d)

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Whether every name is a picture's."""
        return all(is_image2d(Path(name)) for name in ensure_tuple(filename))

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> tuple[Path, ...]:
        """Take the names alone: LoadImaged would try other readers on what this one refuses here."""
        return tuple(Path(name) for name in ensure_tuple(data))

    def get_data(self, img: tuple[Path, ...]) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """The values (rows, columns), or (rows, columns, C) of RGB or several files, and what EnsureChannelFirst needs.

        Raises:
            ValueError: a file that is no picture, files of different sizes, and what the values' reader refuses.
        """
        for file in img:
            if not is_image2d(file):
                raise ValueError(f"got {file}; this bundle is for pictures, PNG or TIFF: choose one for volumes")
        values = self._values(img[0]) if len(img) == 1 else self._joined(img)
        channel_dim = float("nan") if values.ndim == 2 else -1  # nan: MONAI's mark of none
        return values, {"spatial_shape": np.array(values.shape[:2]), "original_channel_dim": channel_dim}

    def _joined(self, files: Sequence[Path]) -> NDArray[np.float32]:
        parts = [np.atleast_3d(self._values(file)) for file in files]
        for file, part in zip(files, parts, strict=True):
            if part.shape[:2] != parts[0].shape[:2]:
                got = f"got {part.shape[:2]} pixels, {files[0]} has {parts[0].shape[:2]}"
                raise ValueError(f"{file}: {got}; the channels of one picture need one size, export them again")
        return np.concatenate(parts, axis=-1)


class LabelImage2DReader(Image2DReader):
    """The same for label maps: palette indices are ids, and colours are refused."""

    _values = staticmethod(read_label_image2d)


class Image2DWriter(ImageWriter):
    """Write a label map (1, rows, columns) for SaveImaged(output_ext=".png", resample=False), as predict does."""

    def set_data_array(self, data_array: NdarrayOrTensor, **kwargs: Any) -> None:
        """Take the label map, wherever it was computed."""
        self.data_obj = convert_to_numpy(data_array)

    def set_metadata(self, meta_dict: Any = None, **options: Any) -> None:
        """A PNG of labels has none."""

    def write(self, filename: PathLike, verbose: bool = True, **kwargs: Any) -> None:
        """Write the PNG, whole or not at all."""
        (labels,) = self.data_obj
        write_label_image2d(labels.round().astype(np.int64), Path(filename))
