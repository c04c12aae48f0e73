"""Deep supervision whose weights sum to one."""

from monai.losses import DeepSupervisionLoss
from torch import nn


class WeightedHeadsLoss(DeepSupervisionLoss):
    """MONAI's deep supervision with weights that sum to one, the final head's the largest.

    Weights halve from head to head (1, 1/2, 1/4, ... over their sum), for however many heads come, so that the loss
    of a supervised network compares with that of a plain one. MONAI's own class leaves the sum to grow with the
    heads, and takes a list of weights of the wrong length without a word. Voxels without a label are left out by the
    loss that it is given: a `LabelledVoxelsLoss`, or a `HybridLoss` with an `ignore_label`.

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
