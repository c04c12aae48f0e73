"""Laws of the loss over labelled voxels: the wrapped loss of what is labelled, and nothing of the rest."""

from collections.abc import Callable

import pytest
import torch
from monai.losses import DiceCELoss, DiceFocalLoss, DiceLoss, FocalLoss, TverskyLoss
from torch import Tensor

from monai_unetfamily.losses import LabelledVoxelsLoss, WeightedHeadsLoss

Loss = Callable[[Tensor, Tensor], Tensor]
OF_NUMBERS: list[Loss] = [
    DiceCELoss(to_onehot_y=True, softmax=True),
    DiceLoss(to_onehot_y=True, softmax=True, include_background=False),
    DiceFocalLoss(to_onehot_y=True, softmax=True),
    FocalLoss(to_onehot_y=True, use_softmax=True),
]
OF_MAPS: list[Loss] = [
    DiceLoss(sigmoid=True),
    FocalLoss(),
    TverskyLoss(sigmoid=True),
    torch.nn.BCEWithLogitsLoss(),
]
EVERY = pytest.mark.parametrize(
    ("inner", "background"), [(x, True) for x in OF_NUMBERS] + [(x, False) for x in OF_MAPS]
)
SIZE = (12, 10, 9)


def batch(background: bool) -> tuple[Tensor, Tensor]:
    """Logits (2, 3, *SIZE) and their label, class numbers or binary maps."""
    torch.manual_seed(0)
    label = torch.randint(0, 3, (2, 1, *SIZE)) if background else torch.randint(0, 2, (2, 3, *SIZE))
    return torch.randn(2, 3, *SIZE, requires_grad=True), label.float()


def slope(loss: Loss, logits: Tensor, label: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(loss(logits, label), logits)
    return gradient


@EVERY
def test_is_the_wrapped_loss_where_all_voxels_are_labelled(inner: Loss, background: bool) -> None:
    logits, label = batch(background)
    for ignore_label in (255, None):
        loss = LabelledVoxelsLoss(inner, ignore_label=ignore_label, background=background)
        assert torch.equal(loss(logits, label), inner(logits, label))
        assert torch.equal(slope(loss, logits, label), slope(inner, logits, label))


@EVERY
def test_unlabelled_space_is_cut_off(inner: Loss, background: bool) -> None:
    logits, label = batch(background)
    label[:, :, 7:] = 255
    expected = inner(logits[:, :, :7], label[:, :, :7])
    loss = LabelledVoxelsLoss(inner, ignore_label=255, background=background)
    torch.testing.assert_close(loss(logits, label), expected)
    kept = slope(lambda x, y: inner(x[:, :, :7], y[:, :, :7]), logits, label)
    torch.testing.assert_close(slope(loss, logits, label), kept)


@EVERY
def test_unlabelled_voxels_are_not_seen(inner: Loss, background: bool) -> None:
    logits, label = batch(background)
    unlabelled = torch.rand(label.shape) < 0.3
    label[unlabelled] = 255
    other = torch.where(unlabelled, torch.nan, logits)
    loss = LabelledVoxelsLoss(inner, ignore_label=255, background=background)
    assert torch.equal(loss(logits, label), loss(other, label))
    for each in (logits, other):
        gradient = slope(loss, each, label)
        assert gradient.isfinite().all()
        assert ((gradient != 0) == ~unlabelled).all()


@EVERY
def test_without_a_label_there_is_no_loss(inner: Loss, background: bool) -> None:
    logits, label = batch(background)
    label[1] = 255
    loss = LabelledVoxelsLoss(inner, ignore_label=255, background=background)
    torch.testing.assert_close(loss(logits, label), inner(logits[:1], label[:1]))
    assert (slope(loss, logits, label)[1] == 0).all()
    label[0] = 255
    assert loss(logits, label) == 0
    assert (slope(loss, logits, label) == 0).all()
    assert loss(torch.full_like(logits, torch.nan), label) == 0


def test_each_map_is_a_sample_of_its_own() -> None:
    logits, label = batch(background=False)
    rest = DiceLoss(sigmoid=True)(logits[:, :2], label[:, :2])
    label[:, 2] = 255
    loss = LabelledVoxelsLoss(DiceLoss(sigmoid=True), ignore_label=255, background=False)
    torch.testing.assert_close(loss(logits, label), rest)


def test_every_head_leaves_them_out() -> None:
    logits, label = batch(background=True)
    label[:, :, 7:] = 255
    inner = OF_NUMBERS[0]
    loss = WeightedHeadsLoss(LabelledVoxelsLoss(inner, ignore_label=255))
    expected = WeightedHeadsLoss(inner)([logits[:, :, :7], -logits[:, :, :7]], label[:, :, :7])
    torch.testing.assert_close(loss([logits, -logits], label), expected)


def test_labels_and_options_that_do_not_fit_are_refused() -> None:
    logits, label = batch(background=True)
    with pytest.raises(ValueError, match="one binary map for each channel"):
        LabelledVoxelsLoss(DiceLoss(sigmoid=True), ignore_label=255, background=False)(logits, label)
    with pytest.raises(ValueError, match="class numbers, one channel"):
        LabelledVoxelsLoss(OF_NUMBERS[0], ignore_label=255)(logits, label.expand_as(logits))
    with pytest.raises(ValueError, match="ignore_label is 0"):
        LabelledVoxelsLoss(DiceLoss(sigmoid=True), ignore_label=0, background=False)
