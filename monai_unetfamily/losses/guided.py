"""The loss of a classification-guided network."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_unetfamily.losses.masked import check_ignore_label, is_labelled


class GuidedLoss(nn.Module):
    """Segmentation loss plus the presence loss of a classification-guided network.

    Presence is trained with binary cross-entropy against "this class occurs in this patch". A class with fewer
    than `min_voxels` voxels in a patch, but not none, has weight 0 there: neither answer would be wrong. So has a
    class that is not seen in a patch with unlabelled voxels: it may be there. A network without guidance (a tensor
    or a list of heads) gets the segmentation loss alone.

    Args:
        segmentation_loss: takes logits (a tensor, or a list of heads) and the label; leaves out unlabelled voxels
            itself, as `LabelledVoxelsLoss` and `HybridLoss` do.
        background: whether label 0 is background; then the label is (N, 1, *spatial) with class numbers;
            otherwise it is (N, C, *spatial) with one binary map for each class.
        presence_weight: of the presence loss.
        min_voxels: voxels under which an occurrence is a sliver.
        ignore_label: the value of voxels without a label; None where there are none.

    Raises:
        ValueError: an `ignore_label` of 0 or 1 without background; a network whose `background` is another.

    >>> from monai.losses import DiceCELoss
    >>> loss = GuidedLoss(DiceCELoss(to_onehot_y=True, softmax=True))
    >>> bool(loss(torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 8, 8)) > 0)
    True
    """

    def __init__(
        self,
        segmentation_loss: Callable[[Any, Tensor], Tensor],
        *,
        background: bool = True,
        presence_weight: float = 0.1,
        min_voxels: int = 10,
        ignore_label: int | None = None,
    ) -> None:
        super().__init__()
        check_ignore_label(ignore_label, background)
        self.segmentation_loss = segmentation_loss
        self.background = background
        self.presence_weight = presence_weight
        self.min_voxels = min_voxels
        self.ignore_label = ignore_label

    def forward(self, output: Any, label: Tensor) -> Tensor:
        """The loss of a network's training output against its label."""
        presence = getattr(output, "presence", None)
        if presence is None:
            return self.segmentation_loss(output, label)
        self._check_channels(output)
        segmentation = self.segmentation_loss(output.logits, label)
        return segmentation + self.presence_weight * self.presence_loss(presence, label)

    def _check_channels(self, output: Any) -> None:
        final = output.logits[0] if isinstance(output.logits, list) else output.logits
        channels, classes = final.shape[1], output.presence.shape[1]
        if channels - classes != self.background:
            raise ValueError(
                f"the network gives {channels} channels and the presence of {classes} classes, and this loss has "
                f"background={self.background}; set background alike in both."
            )

    def presence_loss(self, presence: Tensor, label: Tensor) -> Tensor:
        """Binary cross-entropy of presence logits (N, classes), slivers and what may be unlabelled left out."""
        held, absent = self.present_and_absent(label, presence.shape[1])
        weight = (held | absent).float()
        loss = F.binary_cross_entropy_with_logits(presence.float(), held.float(), weight=weight, reduction="sum")
        return loss / weight.sum().clamp(min=1)

    def present_and_absent(self, label: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        """Which classes each patch holds, and which it surely does not: two of (N, classes), true or false.

        Neither is true of slivers and of what may be unlabelled.
        """
        labelled = is_labelled(label, self.ignore_label)
        voxels = self._voxels(label * labelled, classes)
        return voxels >= max(1, self.min_voxels), (voxels == 0) & labelled.flatten(2).all(dim=2)

    def _voxels(self, label: Tensor, classes: int) -> Tensor:
        """Voxels of each foreground class in each patch: (N, classes)."""
        if not self.background:
            return label.flatten(2).sum(dim=2)
        flat = label.flatten(1)
        return torch.stack([(flat == c).sum(dim=1) for c in range(1, classes + 1)], dim=1)
