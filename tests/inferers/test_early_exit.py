"""The early exit: what the full run gives, without a decoder where no class is present."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from monai_unetfamily.nets import UNet3Plus
from monai_unetfamily.nets.cgm import MARGIN
from tests.support.family import small

SIZES = {2: (16, 24), 3: (8, 16, 9)}
HELD = {"all": [True, True, True], "none": [False, False, False], "some": [True, False, True]}


def guided(dims: int, background: bool, held: list[bool]) -> tuple[UNet3Plus, Tensor]:
    """A network whose guide finds a class in these samples of a batch alone."""
    net = small("unet3plus", dims, cgm=True, background=background, exit_when_absent=True).eval()
    assert isinstance(net, UNet3Plus)
    assert net.cgm is not None
    x = torch.randn(3, 2, *SIZES[dims])
    with torch.no_grad():
        bright = net.cgm.conv.weight.abs().sum(dim=0, keepdim=True)
        net.cgm.conv.weight.copy_(-bright.expand_as(net.cgm.conv.weight))
        presence = net.cgm(net.encode(x)[-1])
    order = presence[:, 0].argsort(descending=True)  # those of which it is surest come first
    x = x[order][torch.tensor(held).int().argsort(descending=True, stable=True).argsort()]
    with torch.no_grad():
        presence = net.cgm(net.encode(x)[-1]).sigmoid()
    ends = torch.zeros(1, presence.shape[1])
    ordered = torch.cat([ends, presence.sort(dim=0).values, 1 - ends])
    net.cgm.threshold.copy_(ordered[3 - sum(held) :][:2].mean(dim=0))  # between two: rounding decides nothing
    assert (presence >= net.cgm.threshold).any(dim=1).tolist() == held
    return net, x


def full(net: UNet3Plus, x: Tensor) -> Tensor:
    net.exit_when_absent = False
    logits = net(x)
    net.exit_when_absent = True
    assert isinstance(logits, Tensor)
    return logits


def decoded(net: UNet3Plus) -> list[int]:
    """Grows by the size of each batch that the last node of the decoder is given."""
    sizes: list[int] = []
    net.De[0].register_forward_hook(lambda module, maps, output: sizes.append(len(output)))
    return sizes


@pytest.mark.parametrize("held", HELD.values(), ids=HELD)
@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("dims", [2, 3])
@torch.no_grad()
def test_gives_what_the_full_run_gives(dims: int, background: bool, held: list[bool]) -> None:
    net, x = guided(dims, background, held)
    early, reference = net(x), full(net, x)
    if background:
        torch.testing.assert_close(early.softmax(1), reference.softmax(1), rtol=0, atol=1e-5)
        assert torch.equal(early.argmax(1), reference.argmax(1))
    else:
        torch.testing.assert_close(early.sigmoid(), reference.sigmoid(), rtol=0, atol=1e-5)
        assert torch.equal(early > 0, reference > 0)


@pytest.mark.parametrize("held", HELD.values(), ids=HELD)
@torch.no_grad()
def test_the_decoder_sees_the_samples_alone_that_hold_a_class(held: list[bool]) -> None:
    net, x = guided(2, True, held)
    sizes = decoded(net)
    net(x)
    assert sizes == [sum(held)] * any(held)
    full(net, x)
    assert sizes[-1] == 3


@pytest.mark.parametrize("background", [True, False])
@torch.no_grad()
def test_what_an_absent_sample_gives_is_known(background: bool) -> None:
    net, x = guided(3, background, HELD["some"])
    logits = net(x)[1]
    assert (logits[int(background) :] == -MARGIN).all()
    assert not background or not logits[0].any()


@torch.no_grad()
def test_a_presence_that_is_no_number_is_decoded() -> None:
    """A network that fails must not look like an empty volume."""
    net, x = guided(2, True, HELD["none"])
    x[1, 0, 3, 3] = torch.nan
    assert net(x)[1].isnan().any()


def test_training_and_gradients_are_untouched() -> None:
    net, x = guided(2, True, HELD["some"])
    weights = [p for key, p in net.named_parameters() if not key.startswith("cgm")]
    early, reference = (
        torch.autograd.grad(f(x)[[0, 2]].square().sum(), weights) for f in (net, lambda x: full(net, x))
    )
    torch.testing.assert_close(early, reference)
    sizes = decoded(net)
    net.train()(x).presence.sum().backward()
    assert sizes == [3]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # tracing is deprecated in torch, and still what ckpt_export uses
@pytest.mark.parametrize(
    "make",
    [
        torch.jit.trace,
        lambda net, x: torch.export.export(net, (x,)).module(),
        pytest.param(lambda net, x: torch.compile(net, backend="eager"), marks=pytest.mark.exhaustive),
    ],
    ids=["traced", "exported", "compiled"],
)
@torch.no_grad()
def test_a_program_decodes_everything(make: Callable[[UNet3Plus, Tensor], Callable[[Tensor], Tensor]]) -> None:
    """What it does must not hang on the values of the example that it was made with: here nothing to decode."""
    net, x = guided(2, True, HELD["some"])
    program = make(net, x[[1, 1, 1]])
    program(x[[1, 1, 1]])
    torch.testing.assert_close(program(x), full(net, x))


@pytest.mark.slow
@torch.no_grad()
def test_a_network_without_values_is_profiled_whole() -> None:
    with torch.device("meta"):
        net = small("unet3plus", 2, cgm=True, exit_when_absent=True).eval()
        assert net(torch.zeros(3, 2, 16, 16)).shape == (3, 3, 16, 16)


def test_needs_the_guide() -> None:
    with pytest.raises(ValueError, match="exit_when_absent is True without cgm"):
        small("unet3plus", 2, exit_when_absent=True)
