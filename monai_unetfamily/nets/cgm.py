"""The classification-guided module (CGM) of UNet 3+, repaired.

Huang et al.: "UNet 3+: A Full-Scale Connected UNet for Medical Image Segmentation", 2020 (arXiv 2004.08790),
section 2.3: the deepest features decide whether an organ is in the image, and that decision gates the maps, so that
an image without the organ gets no false positives.

Deviations: one gate for each class (paper: one for all, binary only); the gate *replaces* an absent class's logit by
a value that loses, in `eval()` alone (published code: multiplies the logits by 0 or 1, so that "absent" reads 0.5
after the sigmoid, and an argmax stops the gradient); presence is trained by its own loss (`losses.GuidedLoss`).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from monai_unetfamily.nets.layers import max_over_space

MARGIN = 10.0  # logits by which an absent class loses: a probability below 5e-5


class GuidedOutput(NamedTuple):
    """What a guided network returns while it trains.

    `logits` is (N, out_channels, *spatial), or a list of such with deep supervision, the final head first;
    `presence` is (N, foreground classes), logits too.
    """

    logits: Tensor | list[Tensor]
    presence: Tensor


class ClassificationGuide(nn.Module):
    """Dropout, 1x1 convolution to one logit for each foreground class, global max pooling; and the gate.

    Args:
        spatial_dims: 2 or 3.
        in_channels: width of the deepest features.
        out_channels: channels of the segmentation.
        background: whether channel 0 is background; it is never gated.
        threshold: probability under which a class is absent: one number, or one for each foreground class.
        dropout: probability before the convolution (paper: 0.5).

    Raises:
        ValueError: for thresholds that do not fit the classes or lie outside 0..1.

    >>> guide = ClassificationGuide(2, 16, 3)
    >>> guide(torch.zeros(1, 16, 4, 4)).shape
    torch.Size([1, 2])
    >>> guide.gate(torch.zeros(1, 3, 1, 1), torch.tensor([[-9.0, 9.0]])).flatten().tolist()
    [0.0, -10.0, 0.0]
    """

    threshold: Tensor

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        background: bool = True,
        threshold: float | Sequence[float] = 0.5,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        classes = out_channels - background
        if classes < 1:
            raise ValueError(
                f"out_channels is {out_channels} with a background channel; guidance needs a foreground class: "
                "use out_channels >= 2, or background=False."
            )
        self.background = background
        self.dropout = nn.Dropout(dropout)
        self.conv = Conv[Conv.CONV, spatial_dims](in_channels, classes, 1)
        self.register_buffer("threshold", _thresholds(threshold, classes), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Presence logits (N, classes) of the deepest features (N, in_channels, *coarse)."""
        return max_over_space(self.conv(self.dropout(features)))

    def absent(self, presence: Tensor) -> Tensor:
        """Which classes are absent: (N, classes), true or false. What is not a number is present: it must be seen."""
        return torch.sigmoid(presence) < self.threshold

    def gate(self, logits: Tensor, presence: Tensor) -> Tensor:
        """Replace the logits (N, out_channels, *spatial) of absent classes by ones that lose."""
        absent = self.absent(presence).reshape(*presence.shape, *[1] * (logits.ndim - 2))
        if not self.background:
            return torch.where(absent, logits.new_tensor(-MARGIN), logits)
        background, classes = logits[:, :1], logits[:, 1:]
        return torch.cat([background, torch.where(absent, background - MARGIN, classes)], dim=1)

    def run_where_present(
        self, decode: Callable[[Sequence[Tensor]], Tensor], features: Sequence[Tensor], presence: Tensor
    ) -> Tensor:
        """Gated logits, as `gate(decode(features), presence)`, with `decode` run where a class is present alone.

        The early exit: a sample without any class is background wherever one looks, so that its logits are taken as 0
        for the background and -10 for the others, and -10 everywhere without background. After softmax or sigmoid and
        `argmax` that is what the full run gives.

        Args:
            decode: maps features (n, C_i, *grid_i) to logits (n, out_channels, *spatial).
            features: those of the encoder, finest first, at the size of the logits.
            presence: logits (N, classes).
        """
        present = ~self.absent(presence).all(dim=1)
        if present.all():
            return self.gate(decode(features), presence)
        channels = presence.shape[1] + self.background
        logits = self.gate(presence.new_zeros(len(presence), channels, *features[0].shape[2:]), presence)
        if present.any():
            logits[present] = self.gate(decode([f[present] for f in features]), presence[present]).to(logits.dtype)
        return logits


def _thresholds(threshold: float | Sequence[float], classes: int) -> Tensor:
    values = [float(threshold)] * classes if isinstance(threshold, int | float) else [float(t) for t in threshold]
    if len(values) != classes or not all(0.0 <= t <= 1.0 for t in values):
        raise ValueError(
            f"presence_threshold is {threshold}; allowed is one probability 0..1, or one for each of the {classes} "
            "foreground classes."
        )
    return torch.tensor(values)
