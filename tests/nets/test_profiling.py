"""Costs against counts by hand and published ones; receptive fields against the equations, walked by hand."""

from collections.abc import Callable, Iterable
from math import ceil, floor
from typing import Any

import pytest
import torch

from monai_unetfamily.nets import list_networks, peak_of_training, profile_network
from monai_unetfamily.nets.profiling import Profile, _peak_of_inference
from tests.support.family import SIZES, small
from tests.support.paper_form import paper_form
from tests.support.tiers import sampled

pytestmark = pytest.mark.slow

EVERYTHING = [(name, preset) for name in list_networks() for preset in (None, "paper")]
WIDE = (64, 128, 256, 512, 1024)


def profile(name: str, size: Iterable[int], channels: int = 1, classes: int = 1, **options: Any) -> Profile:
    return profile_network(name, size=tuple(size), in_channels=channels, out_channels=classes, **options)


@pytest.mark.parametrize(("name", "preset"), sampled(EVERYTHING, *((name, None) for name in list_networks())))
def test_no_size_is_too_large(name: str, preset: str | None) -> None:
    """Tens of terabytes of activations are profiled: nothing is allocated."""
    measured = profile(name, [2**13] * 3, preset=preset)
    assert measured.training_bytes > measured.inference_bytes > 10 * 2**40
    assert len(set(measured.receptive_field)) == 1
    assert measured.strides[-1] == (2 ** (len(measured.strides) - 1),) * 3


@pytest.mark.parametrize("name", list_networks())
def test_work_grows_as_the_number_of_voxels(name: str) -> None:
    one, four = (profile(name, (side, side), features=(4, 8, 8, 8)) for side in (32, 64))
    assert four.macs == 4 * one.macs
    assert four.inference_bytes > 3.9 * one.inference_bytes
    assert (four.parameters, four.receptive_field) == (one.parameters, one.receptive_field)


# Nodes by the equations, L = N = 4 (U-Net and kin), N = 5 (FCN).
NODES = {"unet": 9, "unet_e": 15, "unet_plus": 15, "unetplusplus": 15, "unet3plus": 9}
NODES |= {"fcn32s": 7, "fcn16s": 8, "fcn8s": 9}


@pytest.mark.parametrize("name", NODES)
def test_number_of_nodes(name: str) -> None:
    assert profile(name, (32, 64)).nodes == NODES[name]


def test_multiplications_of_a_unet_by_hand() -> None:
    fine, coarse, taps = 64, 16, 9
    encoder = taps * (1 * 2 + 2 * 2) * fine + taps * (2 * 4 + 4 * 4) * coarse
    up = 4 * 2 * 4 * coarse  # a transposed convolution of size 2 multiplies each coarse voxel by 2 x 2 x (4 to 2)
    decoder = taps * (4 * 2 + 2 * 2) * fine + 2 * 3 * fine
    assert profile("unet", (8, 8), classes=3, features=(2, 4)).macs == encoder + up + decoder


def test_multiplications_of_a_transposed_convolution_by_channels_by_hand() -> None:
    fine, coarse, taps, classes = 64, 16, 9, 3
    encoder = taps * (1 * 2 + 2 * 2) * fine + (taps * 2 * 4 + 4 * 4) * coarse
    score, up = 4 * classes * coarse, 4 * 4 * classes * coarse  # a kernel of 4 x 4 for each class alone
    assert profile("fcn32s", (8, 8), classes=3, features=(2, 4)).macs == encoder + score + up


def test_work_of_unet3plus_is_that_of_its_authors_code() -> None:
    assert round(profile("unet3plus", (256, 256), 3, preset="paper").macs / 1e9, 1) == 197.7


@pytest.mark.parametrize(
    ("name", "options", "ups", "gmac"),
    [("unet", {}, 4, 54.6), ("unetplusplus", {"deep_supervision": True, "mode": "accurate"}, 10, 135.2)],
    ids=["54.6 GMAC", "135.2 GMAC"],
)
def test_work_of_the_rivals_in_that_code(name: str, options: dict[str, Any], ups: int, gmac: float) -> None:
    """It is that of transposed convolutions of size 4, which cost four times as much as those of size 2."""
    macs = profile(name, (256, 256), 3, preset="paper", features=WIDE, **options).macs
    up = 2 * 2 * WIDE[4] * WIDE[3] * (256 // 16) ** 2  # the same at each stage
    assert round((macs + 3 * ups * up) / 1e9, 1) == gmac


CHAIN: dict[str, Any] = {"features": (2,), "norm": None, "act": "relu"}  # image, conv, relu, conv, relu, head
IMAGE, MAP = 4 * 16, 4 * 2 * 16  # bytes at 4 x 4 voxels; logits are an image too


def test_activations_of_a_chain_by_hand() -> None:
    chain = profile("unet", (4, 4), **CHAIN)
    assert (
        chain.inference_bytes == IMAGE + 2 * MAP
    )  # the second convolution's input and output; activations are in place
    kept = IMAGE + MAP + MAP + IMAGE  # image, both activations, logits
    gradients = IMAGE + MAP + MAP  # at the activation: of the logits, of its output, of its input
    assert chain.training_bytes == kept + gradients


def test_batch_norm_keeps_what_it_normalises() -> None:
    """Two maps a convolution more: its output, and the norm's (here the activation works in place, on that)."""
    options = CHAIN | {"act": ("relu", {"inplace": True})}
    plain, normed = (profile("unet", (64, 64), **options | {"norm": norm}) for norm in (None, "batch"))
    statistics = 4 * 4 * 2 * 2  # bytes: mean and deviation, of two norms, and their gradients
    maps = 2 * 4 * 2 * 64 * 64
    assert maps <= normed.training_bytes - plain.training_bytes <= maps + statistics


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", list_networks())
def test_meta_tensors_live_as_real_ones(name: str, dims: int) -> None:
    real = paper_form(small(name, dims, deep_supervision=True))
    meta = small(name, dims, deep_supervision=True).to("meta")
    shape = (1, 2, *SIZES[dims][1])
    for peak in (_peak_of_inference, peak_of_training):
        assert peak(meta, shape) == peak(real, shape) > 0


def test_checkpointing_keeps_less_in_training_and_changes_nothing_else() -> None:
    plain, saving = (profile("unet3plus", (64, 64), features=(4, 8, 8), use_checkpoint=use) for use in (False, True))
    assert saving.training_bytes < plain.training_bytes
    assert (saving.macs, saving.inference_bytes) == (plain.macs, plain.inference_bytes)


# The voxels lo..hi of a grid that a layer takes to make the voxels lo..hi of the next.
Span = tuple[int, int]


def conv(span: Span, size: int = 3, times: int = 1) -> Span:
    return span[0] - times * (size // 2), span[1] + times * (size // 2)


def pooled(span: Span, stride: int = 2) -> Span:
    return span[0] * stride, span[1] * stride + stride - 1


def transposed(span: Span, stride: int = 2) -> Span:
    return span[0] // stride, span[1] // stride


def linear(span: Span, stride: int) -> Span:
    lo, hi = ((voxel + 0.5) / stride - 0.5 for voxel in span)
    return floor(lo), ceil(hi)


def triangle(span: Span, stride: int) -> Span:
    """FCN's kernel of size 2 s, padded by s / 2."""
    pad = stride // 2
    return ceil((span[0] + pad - 2 * stride + 1) / stride), floor((span[1] + pad) / stride)


def both(*spans: Span) -> Span:
    return min(lo for lo, _ in spans), max(hi for _, hi in spans)


def field(logit: Callable[[Span], Span], period: int) -> int:
    return max(hi - lo + 1 for lo, hi in (logit((place, place)) for place in range(period)))


def encoder(i: int, span: Span, convolutions: tuple[int, ...]) -> Span:
    """En[i] and X[i, 0], as far as the image."""
    span = conv(span, times=convolutions[i])
    return span if i == 0 else encoder(i - 1, pooled(span), convolutions)


def unet(N: int) -> int:
    def De(i: int, span: Span) -> Span:
        if i == N:
            return encoder(N, span, (2,) * (N + 1))
        span = conv(span, times=2)
        return both(encoder(i, span, (2,) * (N + 1)), De(i + 1, transposed(span)))

    return field(lambda span: De(0, span), 2**N)


def nested(L: int, seen: Callable[[int], Iterable[int]]) -> int:
    def X(i: int, j: int, span: Span) -> Span:
        if j == 0:
            return encoder(i, span, (2,) * (L + 1))
        span = conv(span, times=2)
        return both(*(X(i, k, span) for k in seen(j)), X(i + 1, j - 1, transposed(span)))

    return field(lambda span: X(0, L, span), 2**L)


def unet3plus(N: int) -> int:
    def De(i: int, span: Span) -> Span:
        if i == N:
            return encoder(N, span, (2,) * (N + 1))
        span = conv(span, times=2)  # H, then C
        finer = (encoder(k, pooled(span, 2 ** (i - k)), (2,) * (N + 1)) for k in range(i))
        coarser = (De(k, linear(span, 2 ** (k - i))) for k in range(i + 1, N + 1))
        return both(*finer, encoder(i, span, (2,) * (N + 1)), *coarser)

    return field(lambda span: De(0, conv(span)), 2**N)


VGG = (2, 2, 3, 3, 3)


def fcn(skips: int) -> int:
    def En(i: int, span: Span) -> Span:
        return encoder(4, pooled(conv(span, 7)), VGG) if i == 5 else encoder(i, span, VGG)

    def S(i: int, span: Span) -> Span:
        return En(5, span) if i == 5 else both(En(i - 1, pooled(span)), S(i + 1, triangle(span, 2)))

    finest = 5 - skips
    return field(lambda span: S(finest, triangle(span, 2**finest)), 32)


FIELDS = [
    ("unet", {}, unet(4), 204),
    ("unet", {"features": (2,)}, unet(0), 5),
    ("unet", {"features": (2,) * 3}, unet(2), 44),
    ("unet_e", {}, nested(4, lambda j: [0]), 204),
    ("unet_plus", {}, nested(4, lambda j: [j - 1]), 204),
    ("unetplusplus", {}, nested(4, range), 204),
    ("unetplusplus", {"features": (2,) * 4}, nested(3, range), unet(3)),  # pruned to L3
    ("unetplusplus", {"features": (2,) * 2}, nested(1, range), unet(1)),
    ("unet3plus", {}, unet3plus(4), 236),
    ("unet3plus", {"features": (2,) * 3}, unet3plus(2), 52),
    ("fcn32s", {"preset": "paper"}, fcn(0), 404 + 32),  # 404: of VGG-16's fc6; two cells for one logit
    ("fcn16s", {"preset": "paper"}, fcn(1), 404 + 64),
    ("fcn8s", {"preset": "paper"}, fcn(2), 404 + 64),
]


@pytest.mark.parametrize(
    ("name", "options", "walked", "number"), FIELDS, ids=[f"{name} {number}" for name, *_, number in FIELDS]
)
def test_receptive_field_is_that_of_the_equations(name: str, options: dict[str, Any], walked: int, number: int) -> None:
    assert walked == number
    assert profile(name, (64, 64), **options).receptive_field == (number, number)


def test_receptive_field_has_its_own_size_along_each_axis() -> None:
    options = {"features": (2, 2, 2), "strides": [(1, 2, 2), 2], "kernel_size": [(1, 3, 3), 3, 3]}
    measured = profile("unet", (8, 16, 16), **options)

    def through(span: Span) -> Span:
        """The finest stage has neither stride nor kernel along the first axis, the second has both."""
        return conv(pooled(conv(transposed(conv(span, times=2)), times=2)), times=2)

    assert measured.strides == ((1, 1, 1), (1, 2, 2), (2, 4, 4))
    assert measured.receptive_field == (field(through, 2), unet(2), unet(2))


def test_guide_and_norm_are_left_out_of_the_receptive_field() -> None:
    options = {"features": (2, 2, 2), "skip_channels": 2, "cgm": True, "norm": "instance"}
    assert profile("unet3plus", (16, 16), classes=2, **options).receptive_field == (unet3plus(2),) * 2


def test_profiling_draws_no_random_number() -> None:
    before = torch.get_rng_state()
    profile("fcn8s", (16, 16), features=(2, 2, 2, 2))
    assert torch.equal(torch.get_rng_state(), before)


def test_what_cannot_be_profiled_is_refused_at_the_door() -> None:
    with pytest.raises(ValueError, match="deepest grid needs at least"):
        profile("unet", (8, 8))
    with pytest.raises(ValueError, match="two or three axes"):
        profile("unet", (8,))
    with pytest.raises(ValueError, match="unet9"):
        profile("unet9", (8, 8))
