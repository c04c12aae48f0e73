"""Losses that MONAI does not have; everything else is `monai.losses`."""

from collections.abc import Callable
from typing import Any

import torch
from monai.losses import DeepSupervisionLoss
from torch import Tensor, nn
from torch.nn import functional as F


class WeightedHeadsLoss(DeepSupervisionLoss):
    """MONAI's deep supervision with weights that sum to one, the final head's the largest.

    Weights halve from head to head (1, 1/2, 1/4, ... over their sum), for however many heads come, so that the loss
    of a supervised network compares with that of a plain one. MONAI's own class leaves the sum to grow with the
    heads, and takes a list of weights of the wrong length without a word.

    >>> from monai.losses import DiceLoss
    >>> [round(w, 3) for w in WeightedHeadsLoss(DiceLoss()).get_weights(3)]
    [0.571, 0.286, 0.143]
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__(loss)  # type: ignore[arg-type]

    def get_weights(self, levels: int = 1) -> list[float]:
        """Weights of `levels` heads, the final head first."""
        total = sum(0.5**level for level in range(levels))
        return [0.5**level / total for level in range(levels)]


class GuidedLoss(nn.Module):
    """Segmentation loss plus the presence loss of a classification-guided network.

    Presence is trained with binary cross-entropy against "this class occurs in this patch". A class with fewer
    than `min_voxels` voxels in a patch, but not none, has weight 0 there: neither answer would be wrong. A network
    without guidance (a tensor or a list of heads) gets the segmentation loss alone.

    Args:
        segmentation_loss: takes logits (a tensor, or a list of heads) and the label.
        background: whether label 0 is background; then the label is (N, 1, *spatial) with class numbers;
            otherwise it is (N, C, *spatial) with one binary map for each class.
        presence_weight: of the presence loss.
        min_voxels: voxels under which an occurrence is a sliver.

    >>> from monai.losses import DiceCELoss
    >>> loss = GuidedLoss(WeightedHeadsLoss(DiceCELoss(to_onehot_y=True, softmax=True)))
    >>> bool(loss([torch.zeros(1, 3, 8, 8)], torch.zeros(1, 1, 8, 8)) > 0)
    True
    """

    def __init__(
        self,
        segmentation_loss: Callable[[Any, Tensor], Tensor],
        *,
        background: bool = True,
        presence_weight: float = 0.1,
        min_voxels: int = 10,
    ) -> None:
        super().__init__()
        self.segmentation_loss = segmentation_loss
        self.background = background
        self.presence_weight = presence_weight
        self.min_voxels = min_voxels

    def forward(self, output: Any, label: Tensor) -> Tensor:
        """The loss of a network's training output against its label."""
        presence = getattr(output, "presence", None)
        if presence is None:
            return self.segmentation_loss(output, label)
        segmentation = self.segmentation_loss(output.logits, label)
        return segmentation + self.presence_weight * self.presence_loss(presence, label)

    def presence_loss(self, presence: Tensor, label: Tensor) -> Tensor:
        """Binary cross-entropy of presence logits (N, classes), slivers left out."""
        voxels = self._voxels(label, presence.shape[1])
        target = (voxels > 0).float()
        weight = ((voxels == 0) | (voxels >= self.min_voxels)).float()
        loss = F.binary_cross_entropy_with_logits(presence.float(), target, weight=weight, reduction="sum")
        return loss / weight.sum().clamp(min=1)

    def _voxels(self, label: Tensor, classes: int) -> Tensor:
        """Voxels of each foreground class in each patch: (N, classes)."""
        if not self.background:
            return label.flatten(2).sum(dim=2)
        flat = label.flatten(1)
        return torch.stack([(flat == c).sum(dim=1) for c in range(1, classes + 1)], dim=1)
