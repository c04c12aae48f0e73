"""Slices as channels: what a 2-D network is trained on is what the sliding window gives it."""

import pytest
import torch
from torch import Tensor

from monai_unetfamily.inferers import WindowInferer
from monai_unetfamily.transforms import StackSlicesd


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("neighbours", [0, 1, 2])
def test_the_channels_are_those_of_the_inferer(axis: int, neighbours: int) -> None:
    volume = torch.rand(2, 7, 6, 5)
    seen: list[Tensor] = []

    def network(x: Tensor) -> Tensor:
        seen.append(x[0])
        return x[:, :2]

    plane = tuple(n for a, n in enumerate(volume.shape[1:]) if a != axis)
    WindowInferer(plane, slice_axis=axis, neighbours=neighbours)(volume[None], network)
    for middle in range(neighbours, volume.shape[axis + 1] - neighbours):
        crop = volume.narrow(axis + 1, middle - neighbours, 2 * neighbours + 1)
        case = StackSlicesd("image", "label", slice_axis=axis)({"image": crop, "label": crop[:1]})
        assert torch.equal(case["image"], seen[middle])
        assert torch.equal(case["label"], volume[:1].select(axis + 1, middle))


def test_what_has_no_middle_is_refused() -> None:
    case = {"image": torch.zeros(1, 4, 4, 2), "label": torch.zeros(1, 4, 4, 2)}
    with pytest.raises(ValueError, match="label has 2 slices; an odd number"):
        StackSlicesd("image", "label")(case)
    with pytest.raises(ValueError, match="slice_axis is 3; 0, 1 or 2"):
        StackSlicesd("image", "label", slice_axis=3)
