"""The sliding window, as a MONAI inferer that a bundle names in its config."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from monai.inferers import Inferer, SliceInferer, SlidingWindowInferer
from torch import Tensor


class WindowInferer(Inferer):
    """Slide a network over a volume and blend its windows as probabilities.

    Probabilities, because the windows of a guided network must not be blended as logits: a mean of logits would let
    a few windows that say "absent" veto their neighbours. Windows slide by MONAI's SlidingWindowInferer.

    A 2-D `roi_size` on a 3-D volume runs slice by slice along `slice_axis` (MONAI's SliceInferer), with `neighbours`
    slices from either side as further channels (2.5-D): channels (z-n, ..., z, ..., z+n), the outermost slices
    repeated at the ends.

    Args:
        roi_size: window, in voxels: as many numbers as the network has spatial axes.
        background: whether channel 0 is background (softmax), or every channel a class of its own (sigmoid).
        overlap: of neighbouring windows, as a fraction of the window.
        mode: blending weights, "gaussian" or "constant".
        sw_batch_size: windows that go through the network at once.
        slice_axis: 0, 1 or 2, for 2-D networks.
        neighbours: slices from either side, for 2-D networks.

    Raises:
        ValueError: for inputs whose axes the window does not fit, and one channel where there is a background.

    >>> inferer = WindowInferer((4, 4), neighbours=1)
    >>> inferer(torch.zeros(1, 1, 6, 5, 3), lambda x: torch.cat([x[:, :1], x[:, 1:2]], dim=1)).shape
    torch.Size([1, 2, 6, 5, 3])
    """

    def __init__(
        self,
        roi_size: Sequence[int],
        *,
        background: bool = True,
        overlap: float = 0.5,
        mode: str = "gaussian",
        sw_batch_size: int = 1,
        slice_axis: int = 2,
        neighbours: int = 0,
    ) -> None:
        super().__init__()
        self.roi_size = tuple(roi_size)
        self.background = background
        self.slice_axis = slice_axis
        self.neighbours = neighbours
        window: dict[str, Any] = {
            "roi_size": self.roi_size,
            "sw_batch_size": sw_batch_size,
            "overlap": overlap,
            "mode": mode,
        }
        self.window = SlidingWindowInferer(**window)
        self.slices = SliceInferer(slice_axis, **window) if len(self.roi_size) == 2 else None

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Probabilities (N, C, *spatial) of (N, channels, *spatial)."""
        axes = inputs.ndim - 2
        if axes == len(self.roi_size):
            return cast(Tensor, self.window(inputs, self._probabilities(network), *args, **kwargs))
        if axes != 3 or self.slices is None:
            raise ValueError(
                f"image has {axes} spatial axes; a window of {self.roi_size} voxels takes {len(self.roi_size)}"
                f"{' or 3' if self.slices else ''}: choose a bundle for such images."
            )
        stacked = stack_neighbours(inputs, self.slice_axis, self.neighbours)
        return cast(Tensor, self.slices(stacked, self._probabilities(network), *args, **kwargs))

    def _probabilities(self, network: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def run(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            logits = network(x, *args, **kwargs).float()
            if self.background and logits.shape[1] < 2:
                raise ValueError("the network gives 1 channel, which softmax turns into ones: use background=False.")
            return logits.softmax(dim=1) if self.background else logits.sigmoid()

        return run


def stack_neighbours(x: Tensor, slice_axis: int, neighbours: int) -> Tensor:
    """Add each slice's neighbours as channels: (N, C, *spatial) to (N, (2n+1) C, *spatial).

    >>> x = torch.arange(3.0).reshape(1, 1, 1, 1, 3)
    >>> stack_neighbours(x, 2, 1)[0, :, 0, 0].tolist()
    [[0.0, 0.0, 1.0], [0.0, 1.0, 2.0], [1.0, 2.0, 2.0]]
    """
    if neighbours == 0:
        return x
    axis = slice_axis + 2
    slices = x.shape[axis]
    places = torch.arange(slices, device=x.device)
    shifts = range(-neighbours, neighbours + 1)
    return torch.cat([x.index_select(axis, (places + s).clamp(0, slices - 1)) for s in shifts], dim=1)
