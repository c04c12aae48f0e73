"""The hybrid loss of UNet 3+.

Huang et al.: "UNet 3+: A Full-Scale Connected UNet for Medical Image Segmentation", 2020 (arXiv 2004.08790),
section 2.2: focal loss (voxels) + MS-SSIM loss (patches) + IoU loss (the whole map), with equal weights.

Deviations: several classes, as softmax with a background or as a sigmoid for each (paper: one binary map), where
MS-SSIM and IoU are means over all channels, background included; 3-D; the scales of MS-SSIM follow from the patch
size (`ms_ssim.fit_scales`; paper: five scales of 320x320), and its powers have a finite slope everywhere; the soft IoU
is smoothed by MONAI's 1e-5, so that a class that neither side has is a perfect match; unlabelled voxels are left out.
"""

import torch
from monai.losses import DiceLoss
from monai.losses.focal_loss import sigmoid_focal_loss, softmax_focal_loss
from torch import Tensor, nn

from monai_unetfamily.losses.masked import check_ignore_label, check_shapes, is_labelled
from monai_unetfamily.losses.ms_ssim import multiscale_ssim


class HybridLoss(nn.Module):
    """Focal + MS-SSIM + IoU loss of logits (N, C, *spatial), 2-D or 3-D, any patch size.

    Each term is 0 for a perfect prediction. Focal loss is `-(1 - p)^gamma log p` of the true class's probability p,
    averaged over voxels (and maps, without background): with gamma 0, the cross-entropy, or the binary one. The
    IoU loss is 1 - I / U with I = sum(p t) and U = sum(p + t - p t) of each map, the MS-SSIM loss 1 - MS-SSIM.
    Both, and so the sum, are means over the maps of all samples. Computed in float32 (or float64), whatever autocast
    says.

    Where a voxel has no label the prediction is taken to be right: the loss does not depend on its logits. The focal
    and the IoU term do not count it; in MS-SSIM it is a place without difference. Maps without a labelled voxel are
    left out of the mean; without any other the loss is 0.

    Args:
        background: whether label 0 is background; then the label is (N, 1, *spatial) with class numbers, and a
            softmax is taken; otherwise it is (N, C, *spatial) with one binary map for each class (sigmoid).
        lambda_focal, lambda_ms_ssim, lambda_iou: weights of the three terms (paper: equal); a term of weight 0 is
            not computed.
        gamma: how much the focal loss looks away from voxels that are right already: 0, or 1 and more (between them
            the slope is infinite where a probability reaches 1).
        alpha: of the focal loss: weight of foreground; background, or an absent class, weighs 1 - alpha. None: all
            weigh 1.
        ignore_label: the value of voxels without a label; None where there are none.

    Raises:
        ValueError: weights below 0 or all 0, a gamma or alpha that is not allowed, an `ignore_label` of 0 or 1
            without background; a background alone; labels of another shape, or with other values, than said above.

    >>> loss = HybridLoss(ignore_label=255)
    >>> label = torch.randint(0, 3, (2, 1, 32, 32))
    >>> right = 100.0 * (label == torch.arange(3).reshape(3, 1, 1))
    >>> float(loss(right, label))
    0.0
    >>> float(loss(torch.zeros(2, 3, 32, 32), label)) > 1
    True
    """

    def __init__(
        self,
        *,
        background: bool = True,
        lambda_focal: float = 1.0,
        lambda_ms_ssim: float = 1.0,
        lambda_iou: float = 1.0,
        gamma: float = 2.0,
        alpha: float | None = None,
        ignore_label: int | None = None,
    ) -> None:
        super().__init__()
        weights = (lambda_focal, lambda_ms_ssim, lambda_iou)
        if min(weights) < 0 or not sum(weights):
            raise ValueError(f"the three weights are {weights}; 0 or more, and one above 0, are allowed.")
        if gamma < 0 or 0 < gamma < 1:
            raise ValueError(f"gamma is {gamma}; 0, or 1 and more, is allowed.")
        if alpha is not None and not 0 <= alpha <= 1:
            raise ValueError(f"alpha is {alpha}; 0..1, or None, is allowed.")
        check_ignore_label(ignore_label, background)
        self.background = background
        self.lambda_focal = lambda_focal
        self.lambda_ms_ssim = lambda_ms_ssim
        self.lambda_iou = lambda_iou
        self.gamma = gamma
        self.alpha = alpha
        self.ignore_label = ignore_label
        self._one_minus_iou = DiceLoss(jaccard=True, reduction="none")

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """The loss of logits against their label."""
        check_shapes(logits, label, self.background)
        labelled = is_labelled(label, self.ignore_label)
        target = self._target(label, labelled, logits.shape[1])
        with torch.autocast(logits.device.type, enabled=False):
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            maps = self._maps(torch.where(labelled, logits, 0.0), target.to(logits), labelled)
        counted = labelled.flatten(2).any(dim=2).expand_as(maps)
        return (maps * counted).sum() / counted.sum().clamp(min=1)

    def _target(self, label: Tensor, labelled: Tensor, channels: int) -> Tensor:
        """Boolean maps (N, C, *spatial) of the classes, False where unlabelled."""
        if self.background and channels < 2:
            raise ValueError("logits have 1 channel, the background's; give a class more, or background=False.")
        highest = channels - 1 if self.background else 1
        wrong = labelled & (label != label.long().clamp(0, highest))
        if wrong.any():
            raise ValueError(
                f"got labels {torch.unique(label[wrong])[:5].tolist()}; whole numbers 0..{highest} are allowed, and "
                f"ignore_label, which is {self.ignore_label}: remap them, or give the network more channels."
            )
        classes = torch.arange(channels, device=label.device).reshape(-1, *[1] * (label.ndim - 2))
        return labelled & (label == (classes if self.background else 1))

    def _maps(self, logits: Tensor, target: Tensor, labelled: Tensor) -> Tensor:
        """The loss of each map: (N, C)."""
        probability = torch.softmax(logits, dim=1) if self.background else torch.sigmoid(logits)
        probability = torch.where(labelled, probability, target)
        loss = logits.new_zeros(logits.shape[:2])
        if self.lambda_focal:
            loss = loss + self.lambda_focal * self._focal(logits, target, labelled)
        if self.lambda_ms_ssim:
            loss = loss + self.lambda_ms_ssim * (1 - multiscale_ssim(probability, target))
        if self.lambda_iou:
            loss = loss + self.lambda_iou * self._one_minus_iou(probability, target).flatten(1)
        return loss

    def _focal(self, logits: Tensor, target: Tensor, labelled: Tensor) -> Tensor:
        """Focal loss of the labelled voxels: (N, 1), of all maps together, or without background (N, C)."""
        if self.background:
            voxels = softmax_focal_loss(logits, target, self.gamma, self.alpha).sum(dim=1, keepdim=True)
        else:
            voxels = sigmoid_focal_loss(logits, target, self.gamma, self.alpha)
        return (voxels * labelled).flatten(2).sum(dim=2) / labelled.flatten(2).sum(dim=2).clamp(min=1)
