"""Laws of the hybrid loss: each term by hand or by MONAI, 0 for a perfect prediction, finite everywhere."""

from typing import Any

import pytest
import torch
from monai.losses import FocalLoss
from torch import Tensor
from torch.nn import functional as F

from monai_unetfamily.losses import GuidedLoss, HybridLoss, WeightedHeadsLoss, multiscale_ssim
from monai_unetfamily.nets import GuidedOutput

SIZES = [(16, 16), (33, 48), (128, 128), (320, 320), (32, 32, 32), (48, 40, 24), (31, 45, 23), (64, 64, 64)]
FOCAL = {"lambda_ms_ssim": 0.0, "lambda_iou": 0.0}
MS_SSIM = {"lambda_focal": 0.0, "lambda_iou": 0.0}
IOU = {"lambda_focal": 0.0, "lambda_ms_ssim": 0.0}
NO_MS_SSIM = {"lambda_ms_ssim": 0.0}
BOTH = pytest.mark.parametrize("background", [True, False])


def labels(size: tuple[int, ...], background: bool, classes: int = 3) -> Tensor:
    """Two samples: blocks of class numbers, or binary maps of them."""
    torch.manual_seed(0)
    numbers = torch.randint(0, classes, (2, 1, *[-(-side // 4) for side in size])).float()
    numbers = F.interpolate(numbers, size=size, mode="nearest")
    return numbers if background else (numbers == numbers_of(classes, size)).float()


def numbers_of(classes: int, size: tuple[int, ...]) -> Tensor:
    return torch.arange(classes).reshape(-1, *[1] * len(size))


def perfect(label: Tensor, background: bool, margin: float = 60.0) -> Tensor:
    """Logits (2, 3, *size) that leave no doubt."""
    right = (label == numbers_of(3, label.shape[2:])) if background else label > 0
    return torch.where(right, margin, -margin)


def gradient(loss: HybridLoss, logits: Tensor, label: Tensor) -> Tensor:
    logits = logits.clone().requires_grad_()
    value = loss(logits, label)
    value.backward()
    assert value.isfinite()
    assert logits.grad is not None
    return logits.grad


def test_focal_with_gamma_0_is_the_cross_entropy() -> None:
    label, logits = labels((16, 12, 20), background=True), torch.randn(2, 3, 16, 12, 20)
    expected = F.cross_entropy(logits, label[:, 0].long())
    torch.testing.assert_close(HybridLoss(gamma=0, **FOCAL)(logits, label), expected)


def test_focal_with_gamma_0_is_the_binary_cross_entropy() -> None:
    label, logits = labels((16, 12, 20), background=False), torch.randn(2, 3, 16, 12, 20)
    expected = F.binary_cross_entropy_with_logits(logits, label)
    torch.testing.assert_close(HybridLoss(background=False, gamma=0, **FOCAL)(logits, label), expected)


@pytest.mark.parametrize(("gamma", "alpha"), [(2, None), (1, 0.25), (3.5, 0.75)])
def test_focal_is_monais(gamma: float, alpha: float | None) -> None:
    label, logits = labels((16, 16), background=False), torch.randn(2, 3, 16, 16)
    loss = HybridLoss(background=False, gamma=gamma, alpha=alpha, **FOCAL)
    torch.testing.assert_close(loss(logits, label), FocalLoss(gamma=gamma, alpha=alpha)(logits, label))
    label = labels((16, 16), background=True)
    monai = FocalLoss(gamma=gamma, alpha=alpha, use_softmax=True, to_onehot_y=True)
    expected = 3 * monai(logits, label)  # MONAI's mean counts the zeros of the two wrong classes
    torch.testing.assert_close(HybridLoss(gamma=gamma, alpha=alpha, **FOCAL)(logits, label), expected)


def test_iou_by_hand() -> None:
    label = torch.zeros(1, 1, 2, 4)
    label[..., 0, :] = 1  # 4 voxels of 8
    probability = torch.tensor([[[[1.0, 1.0, 0.5, 0.0], [0.5, 0.0, 0.0, 0.0]]]])
    logits = probability.logit(eps=1e-12)
    intersection, union = 2.5, 2.5 + 1.5 + 0.5
    loss = HybridLoss(background=False, **IOU)
    torch.testing.assert_close(loss(logits, label), torch.tensor(1 - intersection / union), rtol=0, atol=1e-5)


@BOTH
def test_is_the_weighted_sum_of_its_terms(background: bool) -> None:
    label, logits = labels((32, 40), background), torch.randn(2, 3, 32, 40)
    parts = [HybridLoss(background=background, **only)(logits, label) for only in (FOCAL, MS_SSIM, IOU)]
    whole = HybridLoss(background=background, lambda_focal=0.5, lambda_ms_ssim=2.0, lambda_iou=3.0)
    torch.testing.assert_close(whole(logits, label), 0.5 * parts[0] + 2 * parts[1] + 3 * parts[2])
    probability = logits.softmax(1) if background else logits.sigmoid()
    target = (label == numbers_of(3, (32, 40))).float() if background else label
    torch.testing.assert_close(parts[1], 1 - multiscale_ssim(probability, target).mean())


@BOTH
@pytest.mark.parametrize("size", SIZES)
def test_a_perfect_prediction_gives_0(size: tuple[int, ...], background: bool) -> None:
    label = labels(size, background)
    logits = perfect(label, background)
    loss = HybridLoss(background=background)
    assert 0 <= loss(logits, label) < 1e-6
    assert loss(-logits, label) > 1
    assert gradient(loss, logits, label).abs().max() < 1e-6


@BOTH
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_patches_of_background_alone_give_finite_loss_and_gradient(
    size: tuple[int, ...], background: bool, scale: float
) -> None:
    label = torch.zeros(1, 1 if background else 3, *size)
    logits = scale * torch.randn(1, 3, *size)
    assert gradient(HybridLoss(background=background), logits, label).isfinite().all()


@BOTH
@pytest.mark.parametrize("gamma", [0, 1, 1.5, 2])
def test_the_surest_of_wrong_predictions_gives_finite_loss_and_gradient(background: bool, gamma: float) -> None:
    label = labels((32, 32), background)
    logits = -perfect(label, background, margin=1e4)
    assert gradient(HybridLoss(background=background, gamma=gamma), logits, label).isfinite().all()


@BOTH
@pytest.mark.parametrize("size", [(32, 32), (24, 20, 22)])
def test_its_gradient_leads_from_the_wrong_answer_to_the_right_one(size: tuple[int, ...], background: bool) -> None:
    label = labels(size, background)
    logits = perfect(label, background, margin=-1.0).requires_grad_()
    optimizer, loss = torch.optim.Adam([logits], lr=0.3), HybridLoss(background=background)
    for _ in range(25):
        optimizer.zero_grad()
        loss(logits, label).backward()
        optimizer.step()
    answer = logits.argmax(dim=1, keepdim=True) if background else logits > 0
    assert (answer == label).all()


@BOTH
def test_half_precision_is_computed_in_float32(background: bool) -> None:
    label, logits = labels((32, 32, 32), background), torch.randn(2, 3, 32, 32, 32).bfloat16()
    loss = HybridLoss(background=background)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, slope = loss(logits, label), gradient(loss, logits, label)
    assert value.dtype == torch.float32
    assert torch.equal(value, loss(logits.float(), label))
    assert slope.isfinite().all()


@BOTH
@pytest.mark.parametrize("size", [(7, 6), (23, 22), (5, 4, 6)])
def test_gradients_are_the_slopes(size: tuple[int, ...], background: bool) -> None:
    label, logits = labels(size, background), torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    label.flatten()[::7] = 255
    loss = HybridLoss(background=background, ignore_label=255)
    assert torch.autograd.gradcheck(lambda x: loss(x, label), logits, fast_mode=True)


@pytest.mark.slow
def test_the_largest_patch() -> None:
    label = F.interpolate(labels((40, 40, 40), True, classes=2)[:1], size=(160, 160, 160))
    with torch.no_grad():
        assert 0 < HybridLoss()(torch.randn(1, 2, 160, 160, 160), label) < 5


@BOTH
@pytest.mark.parametrize("size", [(40, 33), (32, 32, 32), (31, 45, 23)])
def test_unlabelled_voxels_are_not_seen(size: tuple[int, ...], background: bool) -> None:
    label, logits = labels(size, background), torch.randn(2, 3, *size)
    unlabelled = torch.rand(label.shape) < 0.3
    label[unlabelled] = 255
    other = torch.where(unlabelled, torch.nan, logits)
    loss = HybridLoss(background=background, ignore_label=255)
    assert torch.equal(loss(logits, label), loss(other, label))
    for each in (logits, other):
        slope = gradient(loss, each, label)
        assert (slope == 0)[unlabelled.expand_as(slope)].all()
        assert (slope != 0)[~unlabelled.expand_as(slope)].float().mean() > 0.99


@BOTH
def test_unlabelled_space_is_cut_off(background: bool) -> None:
    """Of focal and IoU loss this holds to rounding; MS-SSIM takes it for a place without difference."""
    label, logits = labels((40, 32), background), torch.randn(2, 3, 40, 32)
    label[:, :, 25:] = 255
    loss = HybridLoss(background=background, ignore_label=255, **NO_MS_SSIM)
    torch.testing.assert_close(loss(logits, label), loss(logits[:, :, :25], label[:, :, :25]))
    with_it = HybridLoss(background=background, ignore_label=255, **MS_SSIM)
    assert with_it(logits, label) < with_it(logits[:, :, :25], label[:, :, :25])


@BOTH
def test_an_ignore_label_that_does_not_occur_changes_nothing(background: bool) -> None:
    label, logits = labels((32, 32), background), torch.randn(2, 3, 32, 32)
    expected = HybridLoss(background=background)(logits, label)
    assert torch.equal(HybridLoss(background=background, ignore_label=255)(logits, label), expected)


@BOTH
def test_without_a_label_there_is_no_loss(background: bool) -> None:
    label, logits = labels((32, 32), background), torch.randn(2, 3, 32, 32)
    loss = HybridLoss(background=background, ignore_label=255)
    first = loss(logits[:1], label[:1])
    label[1] = 255
    torch.testing.assert_close(loss(logits, label), first)
    label[:] = 255
    assert loss(logits, label) == 0
    assert (gradient(loss, logits, label) == 0).all()
    assert (gradient(loss, torch.full_like(logits, torch.inf), label) == 0).all()


def test_a_map_may_be_unlabelled_for_one_class_alone() -> None:
    label, logits = labels((32, 32), background=False), torch.randn(2, 3, 32, 32)
    rest = HybridLoss(background=False)(logits[:, :2], label[:, :2])
    label[:, 2] = 255
    torch.testing.assert_close(HybridLoss(background=False, ignore_label=255)(logits, label), rest)


def test_works_under_supervision_and_guidance() -> None:
    label, heads = labels((32, 32), background=True), [torch.randn(2, 3, 32, 32) for _ in range(3)]
    label[:, :, :10] = 255
    loss = HybridLoss(ignore_label=255)
    supervised = WeightedHeadsLoss(loss)
    expected = sum(w * loss(h, label) for w, h in zip((4 / 7, 2 / 7, 1 / 7), heads, strict=True))
    torch.testing.assert_close(supervised(heads, label), expected)
    guided = GuidedLoss(supervised, ignore_label=255)
    presence = torch.randn(2, 2)
    total = expected + 0.1 * guided.presence_loss(presence, label)
    torch.testing.assert_close(guided(GuidedOutput(heads, presence), label), total)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lambda_iou": -1.0}, "0 or more, and one above 0"),
        ({"lambda_focal": 0.0, "lambda_ms_ssim": 0.0, "lambda_iou": 0.0}, "one above 0"),
        ({"gamma": 0.5}, "gamma is 0.5"),
        ({"gamma": -1}, "gamma is -1"),
        ({"alpha": 1.5}, "alpha is 1.5"),
        ({"background": False, "ignore_label": 1}, "ignore_label is 1"),
    ],
)
def test_options_without_a_meaning_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HybridLoss(**options)


@pytest.mark.parametrize(
    ("background", "label", "message"),
    [
        (True, torch.zeros(1, 3, 8, 8), r"label has shape \(1, 3, 8, 8\); \(1, 1, 8, 8\) goes"),
        (False, torch.zeros(1, 1, 8, 8), "one binary map for each channel"),
        (True, torch.zeros(1, 1, 8, 9), r"\(1, 1, 8, 8\) goes"),
        (True, torch.full((1, 1, 8, 8), 3), r"got labels \[3\]; whole numbers 0..2"),
        (True, torch.full((1, 1, 8, 8), 0.5), r"got labels \[0.5\]"),
        (True, torch.full((1, 1, 8, 8), -1), r"got labels \[-1\]"),
        (False, torch.full((1, 3, 8, 8), 2), r"got labels \[2\]; whole numbers 0..1"),
    ],
)
def test_labels_that_do_not_fit_are_refused(background: bool, label: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HybridLoss(background=background)(torch.zeros(1, 3, 8, 8), label)


def test_a_background_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="logits have 1 channel, the background's"):
        HybridLoss()(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8))
