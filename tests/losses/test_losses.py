"""Laws of the losses: weights that sum to one, hand calculations, slivers without weight."""

import pytest
import torch
from monai.losses import DeepSupervisionLoss, DiceCELoss, DiceFocalLoss, DiceLoss
from torch.nn import functional as F

from monai_unetfamily.losses import GuidedLoss, WeightedHeadsLoss
from monai_unetfamily.nets import GuidedOutput


def mean_loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (x - y).abs().mean()


class Mean(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return mean_loss(x, y)


@pytest.mark.parametrize("heads", [1, 2, 4, 7])
def test_weights_sum_to_one_and_the_final_head_has_the_largest(heads: int) -> None:
    weights = WeightedHeadsLoss(Mean()).get_weights(heads)
    assert len(weights) == heads
    assert sum(weights) == pytest.approx(1)
    assert weights == sorted(weights, reverse=True)


def test_equal_heads_cost_what_one_costs() -> None:
    x, y = torch.randn(2, 1, 4, 4), torch.randn(2, 1, 4, 4)
    loss = WeightedHeadsLoss(Mean())
    torch.testing.assert_close(loss([x, x, x], y), loss(x, y))


def test_is_monais_loss_over_the_sum_of_its_weights() -> None:
    heads = [torch.randn(1, 3, 8, 8) for _ in range(3)]
    label = torch.randint(0, 3, (1, 1, 8, 8))
    inner = DiceCELoss(to_onehot_y=True, softmax=True)
    ours = WeightedHeadsLoss(inner)(heads, label)
    torch.testing.assert_close(ours, DeepSupervisionLoss(inner)(heads, label) / 1.75)


def test_presence_loss_by_hand() -> None:
    label = torch.zeros(2, 1, 10, 10)
    label[0, 0, :2] = 1  # class 1: 20 voxels in the first patch, none in the second
    label[1, 0, 0, :5] = 2  # class 2: a sliver of 5 voxels in the second, none in the first
    presence = torch.tensor([[0.3, -0.7], [1.1, 2.0]])
    terms = [F.softplus(torch.tensor(v)) for v in (-0.3, -0.7, 1.1)]  # -log p, -log(1-p), -log(1-p); the sliver: none
    loss = GuidedLoss(mean_loss, min_voxels=10)
    torch.testing.assert_close(loss.presence_loss(presence, label), torch.stack(terms).mean())


def test_presence_of_overlapping_maps_counts_each_channel() -> None:
    label = torch.zeros(1, 3, 10, 10)
    label[0, :2] = 1  # two classes overlap everywhere, the third is absent
    presence = torch.tensor([[20.0, 20.0, -20.0]])
    loss = GuidedLoss(mean_loss, background=False)
    assert loss.presence_loss(presence, label) < 1e-6
    assert loss.presence_loss(-presence, label) > 10


def test_slivers_alone_give_no_loss_and_no_nan() -> None:
    label = torch.zeros(1, 1, 10, 10)
    label[0, 0, 0, 0] = 1
    presence = torch.zeros(1, 1, requires_grad=True)
    loss = GuidedLoss(mean_loss).presence_loss(presence, label)
    loss.backward()
    assert loss == 0
    assert presence.grad is not None
    assert presence.grad.abs().sum() == 0


def test_what_is_not_seen_beside_unlabelled_voxels_has_no_weight() -> None:
    label = torch.zeros(3, 1, 10, 10)
    label[:2, 0, :2] = 1  # class 1 is seen in the first two patches, class 2 nowhere
    label[1:, 0, 9] = 255
    presence = torch.tensor([[0.3, -0.7], [1.1, 2.0], [0.9, -0.4]])
    terms = [F.softplus(torch.tensor(v)) for v in (-0.3, -0.7, -1.1)]  # first patch: both; second: class 1; third: none
    loss = GuidedLoss(mean_loss, ignore_label=255)
    torch.testing.assert_close(loss.presence_loss(presence, label), torch.stack(terms).mean())


def test_unlabelled_voxels_of_a_map_hide_its_class_alone() -> None:
    label = torch.zeros(1, 3, 10, 10)
    label[0, 0, :2] = 1
    label[0, :2, 9] = 255  # class 0 is seen, class 1 is not, class 2 is wholly labelled
    terms = [F.softplus(torch.tensor(v)) for v in (-0.3, -0.7)]
    loss = GuidedLoss(mean_loss, background=False, ignore_label=255)
    value = loss.presence_loss(torch.tensor([[0.3, 5.0, -0.7]]), label)
    torch.testing.assert_close(value, torch.stack(terms).mean())


def test_guided_loss_is_segmentation_plus_weighted_presence() -> None:
    logits, label, presence = torch.randn(1, 3, 8, 8), torch.randint(0, 3, (1, 1, 8, 8)), torch.randn(1, 2)
    inner = DiceCELoss(to_onehot_y=True, softmax=True)
    loss = GuidedLoss(inner, presence_weight=0.5)
    expected = inner(logits, label) + 0.5 * loss.presence_loss(presence, label)
    torch.testing.assert_close(loss(GuidedOutput(logits, presence), label), expected)


@pytest.mark.parametrize("background", [True, False])
def test_a_network_of_another_background_is_refused(background: bool) -> None:
    presence = torch.zeros(1, 3 if background else 2)
    output = GuidedOutput([torch.zeros(1, 3, 8, 8)], presence)
    with pytest.raises(ValueError, match=f"background={background}; set background alike"):
        GuidedLoss(mean_loss, background=background)(output, torch.zeros(1, 1, 8, 8))


def test_a_network_without_guidance_gets_the_segmentation_loss_alone() -> None:
    heads, label = [torch.randn(1, 3, 8, 8)], torch.randint(0, 3, (1, 1, 8, 8))
    inner = WeightedHeadsLoss(DiceCELoss(to_onehot_y=True, softmax=True))
    assert torch.equal(GuidedLoss(inner)(heads, label), inner(heads, label))


def test_the_recipe_for_overlapping_classes_takes_each_channel_by_itself() -> None:
    """Dice plus binary cross-entropy; MONAI's DiceCELoss, sigmoid or not, lets channels compete in a softmax."""
    logits, label = torch.randn(2, 3, 8, 8), torch.randint(0, 2, (2, 3, 8, 8)).float()
    bce = F.binary_cross_entropy_with_logits(logits, label)
    dice = DiceLoss(sigmoid=True)(logits, label)
    torch.testing.assert_close(DiceFocalLoss(sigmoid=True, gamma=0.0)(logits, label), dice + bce)
    compete = F.cross_entropy(logits, label)
    torch.testing.assert_close(DiceCELoss(sigmoid=True)(logits, label), dice + compete)


def test_maps_keep_0_and_1_for_themselves() -> None:
    with pytest.raises(ValueError, match="ignore_label is 1"):
        GuidedLoss(mean_loss, background=False, ignore_label=1)
