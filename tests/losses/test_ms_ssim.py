"""Laws of MS-SSIM: MONAI's value where MONAI has one, 1 for equal maps, finite slopes everywhere."""

import pytest
import torch
from monai.metrics.regression import compute_ms_ssim
from torch import Tensor

from monai_unetfamily.losses import fit_scales, multiscale_ssim
from monai_unetfamily.losses.ms_ssim import FLOOR, SIGMA, WINDOW, scale_weights

SIZES = [(16, 16), (33, 48), (64, 64), (320, 320), (32, 32, 32), (48, 40, 24), (31, 45, 23), (64, 64, 64), (5, 3, 1)]


def blob(size: tuple[int, ...], channels: int = 1) -> Tensor:
    """Binary maps (2, channels, *size) of half spaces, another one in each."""
    torch.manual_seed(0)
    grid = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, side) for side in size], indexing="ij"))
    normals = torch.randn(2, channels, len(size))
    return (torch.einsum("ncd,d...->nc...", normals, grid) > 0.1).float()


def noisy(y: Tensor) -> Tensor:
    return 0.7 * y + 0.3 * torch.rand_like(y)


@pytest.mark.parametrize(
    "size",
    [(16, 16), (33, 48), (64, 64), (99, 120), (160, 160), (176, 320), (24, 24, 6), (32, 32, 32), (48, 40, 24)],
)
def test_agrees_with_monai_where_monai_takes_the_size(size: tuple[int, ...]) -> None:
    y = blob(size, channels=2)
    x = noisy(y)
    scales, windows = fit_scales(size)
    options = {"kernel_size": windows, "kernel_sigma": [SIGMA * w / WINDOW for w in windows]}
    for channel in range(2):
        maps = x[:, channel : channel + 1], y[:, channel : channel + 1]
        expected = compute_ms_ssim(*maps, len(size), weights=scale_weights(scales), **options)
        torch.testing.assert_close(multiscale_ssim(*maps), expected, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(multiscale_ssim(x, y)[:, channel : channel + 1], expected, rtol=1e-4, atol=1e-6)


def test_is_the_papers_at_the_papers_size() -> None:
    y = blob((320, 320))
    x = noisy(y)
    torch.testing.assert_close(multiscale_ssim(x, y), compute_ms_ssim(x, y, 2), rtol=1e-4, atol=1e-6)


def test_a_volume_of_equal_slices_is_its_slice() -> None:
    y = blob((40, 32))
    x = noisy(y)
    volumes = (each[..., None].expand(-1, -1, -1, -1, 32) for each in (x, y))
    torch.testing.assert_close(multiscale_ssim(*volumes), multiscale_ssim(x, y), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_is_one_for_equal_maps_and_less_for_others(size: tuple[int, ...]) -> None:
    y = blob(size, channels=3)
    x = noisy(y)
    assert torch.equal(multiscale_ssim(x, x), torch.ones(2, 3))
    assert (multiscale_ssim(x, y) < 1).all()
    assert (multiscale_ssim(x, y) > 0).all()
    torch.testing.assert_close(multiscale_ssim(x, y), multiscale_ssim(y, x))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("prediction", [lambda y: y, lambda y: 1 - y, torch.zeros_like, lambda y: 0 * y + 0.5])
def test_slopes_are_finite(size: tuple[int, ...], prediction: object) -> None:
    y = blob(size)
    x = prediction(y).requires_grad_()  # type: ignore[operator]
    value = multiscale_ssim(x, y)
    value.sum().backward()
    assert value.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_maps_opposed_everywhere_still_have_a_way_out() -> None:
    """MONAI's value is 0 there, and gives no direction."""
    y = (torch.arange(32)[:, None] + torch.arange(32) & 2 > 0).float()[None, None]
    x = (1 - y).requires_grad_()
    assert compute_ms_ssim(x, y, 2, weights=scale_weights(2)) == 0
    value = multiscale_ssim(x, y)
    value.sum().backward()
    assert 0 < value < FLOOR
    assert x.grad is not None
    step = x.detach() + 1e-3 * x.grad / x.grad.abs().max()
    assert multiscale_ssim(step, y) > value


@pytest.mark.parametrize("size", [(9, 7), (23, 22), (5, 4, 6)])
def test_gradients_are_the_slopes(size: tuple[int, ...]) -> None:
    y = blob(size).double()
    x = noisy(y).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: multiscale_ssim(x, y), x, fast_mode=True)


def test_every_scale_has_room_for_the_window_and_more_voxels_never_mean_fewer_scales() -> None:
    found = [fit_scales((side, 400, 400)) for side in range(1, 401)]
    for side, (scales, windows) in enumerate(found, start=1):
        assert side // 2 ** (scales - 1) >= windows[0]
        assert windows[0] % 2 == 1
        assert windows[0] == WINDOW or (scales == 1 and side <= windows[0] + 1)
    assert [scales for scales, _ in found] == sorted(scales for scales, _ in found)
    assert {scales for scales, _ in found} == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("scales", [1, 2, 3, 4, 5])
def test_weights_sum_to_one(scales: int) -> None:
    assert len(scale_weights(scales)) == scales
    assert sum(scale_weights(scales)) == pytest.approx(1)


@pytest.mark.parametrize("size", [(), (32,), (8, 8, 8, 8), (8, 0)])
def test_sizes_without_a_meaning_are_refused(size: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="two or three sides of 1 or more"):
        fit_scales(size)


def test_maps_of_other_shapes_are_not_stretched() -> None:
    with pytest.raises(ValueError, match="one shape for both"):
        multiscale_ssim(torch.zeros(2, 3, 32, 32), torch.zeros(2, 1, 32, 32))
