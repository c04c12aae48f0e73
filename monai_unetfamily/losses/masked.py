"""Voxels without a label: which they are, and how a loss leaves them out."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def is_labelled(label: Tensor, ignore_label: int | None) -> Tensor:
    """True where a voxel has a label; everywhere if `ignore_label` is None.

    >>> is_labelled(torch.tensor([0, 1, 255]), 255).tolist()
    [True, True, False]
    """
    return torch.ones_like(label, dtype=torch.bool) if ignore_label is None else label != ignore_label


def check_ignore_label(ignore_label: int | None, background: bool) -> None:
    """Refuse an `ignore_label` that binary maps use themselves.

    Raises:
        ValueError: 0 or 1 without a background class.

    >>> check_ignore_label(1, background=False)
    Traceback (most recent call last):
    ValueError: ignore_label is 1, which binary maps use themselves; another number is allowed, 255 for one.
    """
    if not background and ignore_label in (0, 1):
        raise ValueError(
            f"ignore_label is {ignore_label}, which binary maps use themselves; another number is allowed, 255 for one."
        )


def check_shapes(logits: Tensor, label: Tensor, background: bool) -> None:
    """Refuse a label whose shape does not go with the logits (N, C, *spatial).

    Raises:
        ValueError: says the shape got and the one allowed.

    >>> check_shapes(torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 8), background=True)
    Traceback (most recent call last):
    ValueError: label has shape (2, 3, 8, 8); (2, 1, 8, 8) goes with these logits: give class numbers, one channel.
    """
    samples, channels, *size = logits.shape
    allowed = (samples, 1 if background else channels, *size)
    if tuple(label.shape) != allowed:
        kind = "class numbers, one channel" if background else "one binary map for each channel"
        raise ValueError(f"label has shape {tuple(label.shape)}; {allowed} goes with these logits: give {kind}.")


class LabelledVoxelsLoss(nn.Module):
    """Any loss of voxels or of their overlap, over the labelled voxels alone.

    The wrapped loss is given the labelled voxels of one sample after the other, as (1, C, voxels) and (1, 1, voxels),
    and the mean is taken over the samples that have any. So it neither sees the other voxels nor sends them a
    gradient, and where all voxels are labelled the result is the wrapped loss itself, on the whole batch. Without
    any labelled voxel it is 0, with gradients of 0. With binary maps (`background=False`) a voxel can be labelled
    for one class and not for another, and each map is a sample of its own.

    MONAI's own `ignore_index` is in some of its losses only (not in `DiceCELoss`), and in `FocalLoss` with several
    channels its mean is taken over too few numbers.

    Args:
        loss: takes logits (N, C, *spatial) and the label, and averages over samples; it must not look at neighbours
            (`DiceLoss`, `DiceCELoss`, `FocalLoss`, ... are fine; `HybridLoss` has an `ignore_label` of its own).
            Without background it must treat each channel by itself: `DiceCELoss` does not, its cross-entropy of
            several channels is one over classes.
        ignore_label: the value of voxels without a label; None where there are none.
        background: whether label 0 is background; then the label is (N, 1, *spatial) with class numbers;
            otherwise it is (N, C, *spatial) with one binary map for each class.

    Raises:
        ValueError: an `ignore_label` of 0 or 1 without background; a label of another shape than said above.

    >>> from monai.losses import DiceCELoss
    >>> loss = LabelledVoxelsLoss(DiceCELoss(to_onehot_y=True, softmax=True), ignore_label=255)
    >>> float(loss(torch.randn(1, 3, 8, 8), torch.full((1, 1, 8, 8), 255)))
    0.0
    """

    def __init__(
        self, loss: Callable[[Tensor, Tensor], Tensor], *, ignore_label: int | None, background: bool = True
    ) -> None:
        super().__init__()
        check_ignore_label(ignore_label, background)
        self.loss = loss
        self.ignore_label = ignore_label
        self.background = background

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """The loss of logits (N, C, *spatial) over the labelled voxels."""
        check_shapes(logits, label, self.background)
        labelled = is_labelled(label, self.ignore_label)
        if labelled.all():
            return self.loss(logits, label)
        if not labelled.any():
            return torch.where(labelled, logits, 0.0).sum()  # 0 with a gradient: an optimizer, or DDP, asks for one
        if not self.background:
            logits, label, labelled = (each.flatten(0, 1).unsqueeze(1) for each in (logits, label, labelled))
        samples = zip(logits, label, labelled[:, 0], strict=True)
        losses = [self.loss(x[:, known][None], y[:, known][None]) for x, y, known in samples if known.any()]
        return torch.stack(losses).mean()
