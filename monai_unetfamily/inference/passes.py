"""Windows on their way through a network: cut out, flipped, skipped, run, turned into scores."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from monai_unetfamily.inference.windows import Start, Windows

Network = Callable[[Tensor], Tensor | list[Tensor]]


class Pass(NamedTuple):
    """A window of an item of the batch, flipped along some spatial axes."""

    start: Start
    item: int
    flips: tuple[int, ...]


@dataclass(frozen=True)
class Passes:
    """Runs networks on windows of an image (N, channels, *spatial), padded as `windows` need it.

    Of several networks the scores are averaged. The other arguments are those of `WindowInferer`.
    """

    image: Tensor
    windows: Windows
    networks: Sequence[Network]
    background: bool | None
    skip_below: float | None
    sw_device: torch.device | str

    def run(self, batch: Sequence[Pass], skip: bool) -> list[Tensor | None]:
        """Each window's scores (classes, *roi), flipped as it is; None where it is skipped, if `skip` allows it."""
        crops = [self.windows.crop(self.image, *one) for one in batch]
        skipped = [skip and self._is_background(crop) for crop in crops]
        seen = [self.windows.stack(crop) for crop, without in zip(crops, skipped, strict=True) if not without]
        scores = iter(self._mean(torch.cat(seen).to(self.sw_device)) if seen else ())
        return [None if without else next(scores) for without in skipped]

    def upright(self, one: Pass, scores: Tensor | None, classes: int) -> Tensor:
        """A window's scores (classes, *roi), flipped back, from what `run` gave for it."""
        if scores is None:
            of_class = torch.zeros(classes, device=self.image.device)
            of_class[0] = float(bool(self.background))
            return of_class.reshape(-1, *[1] * len(self.windows.roi)).expand(-1, *self.windows.roi)
        return scores.flip([axis + 1 for axis in one.flips]) if one.flips else scores

    def _is_background(self, crop: Tensor) -> bool:
        return self.skip_below is not None and bool(crop.amax() <= self.skip_below)

    def _mean(self, x: Tensor) -> Tensor:
        """The mean of the networks' scores (N, classes, *roi)."""
        first, *others = self.networks
        scores = self._activated(self._logits(x, first))
        for network in others:
            scores = scores + self._activated(self._logits(x, network))
        return scores / len(self.networks) if others else scores

    def _activated(self, logits: Tensor) -> Tensor:
        if self.background is None:
            return logits
        return logits.float().softmax(dim=1) if self.background else logits.float().sigmoid()

    def _logits(self, x: Tensor, network: Network) -> Tensor:
        logits = _final(network(x))
        if logits.shape != (len(x), logits.shape[1], *x.shape[2:]):
            raise ValueError(
                f"the network gives {tuple(logits.shape)} for windows of {tuple(x.shape)}; (N, classes, *spatial) of "
                "the same N and voxels is needed: choose another window, or another network."
            )
        if self.background and logits.shape[1] < 2:
            raise ValueError("the network gives 1 channel, which softmax turns into ones: use background=False.")
        return self.windows.unstack(logits)


def _final(output: Tensor | list[Tensor]) -> Tensor:
    """A network's one map; MONAI's BasicUNetPlusPlus without deep supervision returns it in a list.

    Raises:
        ValueError: several maps, of which nobody knows the final one.
    """
    if not isinstance(output, list):
        return output
    if len(output) != 1:
        raise ValueError(f"the network gives {len(output)} maps; one is needed: build it without deep supervision.")
    return output[0]
