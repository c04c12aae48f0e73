"""Slices with their neighbours as channels, as a transform that training configs of 2-D networks on volumes name."""

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import ensure_tuple


class StackSlicesd(MapTransform):
    """Reorientation a stack of slices into one: of images all slices become channels, of labels the middle one stays.

    An image (C, *spatial) with 2n+1 slices along `slice_axis` becomes ((2n+1) C, *plane), the channels of the first
    slice first, as `WindowInferer` gives them to the network; a label (C, *spatial) becomes (C, *plane).

    Args:
        keys: of images.
        label_keys: of labels.
        slice_axis: 0, 1 or 2.

    >>> import torch
    >>> case = {"image": torch.zeros(2, 8, 6, 3), "label": torch.zeros(1, 8, 6, 3)}
    >>> case = StackSlicesd("image", "label", slice_axis=2)(case)
    >>> case["image"].shape, case["label"].shape
    (torch.Size([6, 8, 6]), torch.Size([1, 8, 6]))

    Raises:
        ValueError: an axis that no volume has, or an even number of slices.
    """

    def __init__(self, keys: KeysCollection, label_keys: KeysCollection, slice_axis: int = 2) -> None:
        super().__init__(keys)
        self.label_keys = ensure_tuple(label_keys)
        if slice_axis not in (0, 1, 2):
            raise ValueError(f"slice_axis is {slice_axis}; 0, 1 or 2 is allowed.")
        self.slice_axis = slice_axis

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The case's other keys stay."""
        case = dict(data)
        for key in self.key_iterator(case):
            case[key] = case[key].movedim(self.slice_axis + 1, 0).flatten(0, 1)
        for key in self.label_keys:
            slices = case[key].shape[self.slice_axis + 1]
            if slices % 2 == 0:
                raise ValueError(f"{key} has {slices} slices; an odd number has a middle one: crop 2n+1.")
            case[key] = case[key].select(self.slice_axis + 1, slices // 2)
        return case
