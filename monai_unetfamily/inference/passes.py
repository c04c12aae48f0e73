"""Windows on their way through a network: cut out, flipped, skipped, run, turned into scores."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from monai_unetfamily.inference.windows import Start, Windows

Network = Callable[[Tensor], Tensor]


class Pass(NamedTuple):
    """A window of an item of the batch, flipped along some spatial axes."""

    start: Start
    item: int
    flips: tuple[int, ...]


@dataclass(frozen=True)
class Passes:
    """Runs a network on windows of an image (N, channels, *spatial), padded as `windows` need it.

    The other arguments are those of `WindowInferer`.
    """

    image: Tensor
    windows: Windows
    network: Network
    background: bool | None
    skip_below: float | None
    sw_device: torch.device | str

    def run(self, batch: Sequence[Pass], skip: bool) -> list[Tensor | None]:
        """Each window's logits (classes, *roi), flipped as it is; None where it is skipped, if `skip` allows it."""
        crops = [self.windows.crop(self.image, *one) for one in batch]
        skipped = [skip and self._is_background(crop) for crop in crops]
        seen = [self.windows.stack(crop) for crop, without in zip(crops, skipped, strict=True) if not without]
        logits = iter(self._logits(torch.cat(seen)) if seen else ())
        return [None if without else next(logits) for without in skipped]

    def scores(self, one: Pass, logits: Tensor | None, classes: int) -> Tensor:
        """A window's scores (classes, *roi) from what `run` gave for it."""
        if logits is None:
            of_class = torch.zeros(classes, device=self.image.device)
            of_class[0] = float(bool(self.background))
            return of_class.reshape(-1, *[1] * len(self.windows.roi)).expand(-1, *self.windows.roi)
        if self.background is not None:
            logits = logits.float().softmax(dim=0) if self.background else logits.float().sigmoid()
        return logits.flip([axis + 1 for axis in one.flips]) if one.flips else logits

    def _is_background(self, crop: Tensor) -> bool:
        return self.skip_below is not None and bool(crop.amax() <= self.skip_below)

    def _logits(self, x: Tensor) -> Tensor:
        logits = self.network(x.to(self.sw_device))
        if logits.shape != (len(x), logits.shape[1], *x.shape[2:]):
            raise ValueError(
                f"the network gives {tuple(logits.shape)} for windows of {tuple(x.shape)}; (N, classes, *spatial) of "
                "the same N and voxels is needed: choose another window, or another network."
            )
        if self.background and logits.shape[1] < 2:
            raise ValueError("the network gives 1 channel, which softmax turns into ones: use background=False.")
        return self.windows.unstack(logits)
