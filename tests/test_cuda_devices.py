"""Networks, losses and the training step on CUDA, by tensors that have a device and no values (`cuda_stand_in`).

Every result must be on the CUDA device and have the shape and the type of the CPU's. A tensor that is made on the CPU
in between fails, since CUDA's own check of devices is part of torch's fake tensors. Not tested here:

- values, memory, speed, and whether CUDA has a kernel for an operation and a type;
- autocast on CUDA: in a CPU build it converts nothing, so that all maps stay float32 (see
  inferers/test_mixed_precision.py for the CPU);
- the values that branches depend on: each test names the answers, and a mask selects one element;
- numbers that the code takes out of tensors (`float(loss)`, `tolist()`) and what it makes of them;
- CUDA graphs, `torch.compile`, several devices, streams and what the CPU does meanwhile.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from monai.data import set_track_meta
from monai.losses import DiceCELoss, DiceFocalLoss
from torch import Tensor
from torch.utils._pytree import tree_leaves

from monai_unetfamily import losses
from monai_unetfamily.bundles import choose_network, class_names, image_shape
from monai_unetfamily.bundles.trust.config_review import training_parser
from monai_unetfamily.comparison import prediction_cost
from monai_unetfamily.losses import GuidedLoss, HybridLoss, LabelledVoxelsLoss, WeightedHeadsLoss, multiscale_ssim
from monai_unetfamily.nets import MEMBERS, GuidedOutput, SkipFCN, UNetPlusPlus, create_network
from monai_unetfamily.nets.layers.upsampling import Upsampled, coarse_convolution
from monai_unetfamily.training import pruning
from monai_unetfamily.training.history import History
from tests.support.cuda_stand_in import CPU, CUDA, StandIn, assert_like_on_the_cpu, stand_ins
from tests.support.tiers import sampled

# The first option of a variant is what it is about: members without it have no such variant.
VARIANTS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "defaults": ((3,), {}),
    "checkpointed": ((2,), {"use_checkpoint": True}),
    "supervised": ((3,), {"deep_supervision": True, "norm": "batch", "dropout": 0.1}),
    "linear": ((2, 3), {"upsample": "linear", "norm": None, "block": "residual"}),
    "residual": ((3,), {"encoder": "residual", "norm": ("group", {"num_groups": 2})}),
    "averaged": ((2,), {"mode": "accurate", "deep_supervision": True}),
    "learned": ((2,), {"learned_upsampling": True}),
    "guided": ((2, 3), {"cgm": True, "deep_supervision": True}),
    "guided, no background": ((2,), {"cgm": True, "background": False}),
    "paper": ((2, 3), {"preset": "paper"}),
}


def members() -> list[Any]:
    """Every member of the registry, as small as it can be, in each variant that it has."""
    found = []
    for name, member in MEMBERS.items():
        for variant, (axes, options) in VARIANTS.items():
            known = {key: value for key, value in options.items() if key in (*member.options, "preset")}
            if list(known)[:1] != list(options)[:1]:
                continue
            stages = 3 if member.network is not SkipFCN else 6 if variant == "paper" else 4
            known |= {"features": (4, 8, 8, 8, 8, 8)[:stages]}
            known |= {"skip_channels": 4} if "skip_channels" in member.options else {}
            found += [pytest.param(name, dims, known, id=f"{name}, {dims}-D, {variant}") for dims in axes]
    return found


@pytest.mark.parametrize(("name", "dims", "options"), members())
def test_networks(name: str, dims: int, options: dict[str, Any]) -> None:
    """Outputs in train() and in eval(), and the gradients of all weights."""
    network = create_network(name, spatial_dims=dims, in_channels=2, out_channels=3, **options)
    size = (33, 32, 32)[:dims] if len(options["features"]) == 6 else (9, 12, 10)[:dims]

    def run(device: torch.device) -> Any:
        x = torch.zeros(2, 2, *size).to(device)
        network.to(device).zero_grad()
        trained = network.train()(x)
        sum(each.square().mean() for each in tree_leaves(trained)).backward()
        with torch.no_grad():
            return trained, [p.grad for p in network.parameters()], network.eval()(x)

    on_cpu = run(CPU)
    with stand_ins():
        assert_like_on_the_cpu(run(CUDA), on_cpu)


@pytest.mark.parametrize("answers", [(True,), (False, False), (False, True)], ids=["all", "none", "some"])
@pytest.mark.parametrize("background", [True, False])
def test_early_exit(background: bool, answers: Sequence[bool]) -> None:
    """Whether all samples hold a class, whether any does: each branch."""
    options: dict[str, Any] = {"cgm": True, "background": background, "exit_when_absent": True, "skip_channels": 4}
    network = create_network(
        "unet3plus", spatial_dims=2, in_channels=1, out_channels=3, features=(4, 8), **options
    ).eval()
    with stand_ins(answers), torch.no_grad():
        assert_like_on_the_cpu(network.to(CUDA)(torch.zeros(3, 1, 8, 8).to(CUDA)), torch.zeros(3, 3, 8, 8))


@pytest.mark.parametrize("size", [(9, 14), (9, 6, 14)], ids=["2-D", "3-D"])
def test_coarse_grid_convolution(size: tuple[int, ...]) -> None:
    """On CUDA the plain form is taken; this one must work there to be compared with it."""

    def run(device: torch.device) -> Any:
        x = torch.ones(2, 4, *(n // 2 for n in size)).to(device).requires_grad_()
        kernel = torch.ones(3, 4, *(3 for _ in size)).to(device).requires_grad_()
        y = coarse_convolution(Upsampled(x, size), kernel)
        y.sum().backward()
        return y, x.grad, kernel.grad

    on_cpu = run(CPU)
    with stand_ins():
        assert_like_on_the_cpu(run(CUDA), on_cpu)


def test_cut_and_started_networks_stay_on_the_device() -> None:
    nested = UNetPlusPlus(2, 1, 2, features=(4, 8, 8), deep_supervision=True)
    coarse, fine = (SkipFCN(2, 1, 2, skips=skips, features=(4, 8, 8)) for skips in (0, 1))
    with stand_ins():
        cut = nested.to(CUDA).pruned(1)
        fine.to(CUDA).start_from(coarse.state_dict())
        assert {t.device for network in (cut, fine) for t in network.state_dict().values()} == {CUDA}


def ssim(logits: Tensor, label: Tensor) -> Tensor:
    return multiscale_ssim(logits.sigmoid(), label.expand_as(logits).float()).mean()


def guided(logits: Tensor) -> GuidedOutput:
    return GuidedOutput([logits, logits], logits.flatten(2).amax(2)[:, 1:])


DICE = DiceCELoss(to_onehot_y=True, softmax=True)
BINARY = DiceFocalLoss(sigmoid=True)
MASKED = LabelledVoxelsLoss(DICE, ignore_label=255)
# the loss, how many channels its label has, and the answers: "all voxels labelled?", "any?", then sample by sample
LOSSES: dict[str, tuple[Callable[..., Tensor], int, Sequence[bool]]] = {
    "HybridLoss": (HybridLoss(alpha=0.25, ignore_label=255), 1, [False]),
    "HybridLoss, no background": (HybridLoss(background=False, alpha=0.25), 3, [False]),
    "LabelledVoxelsLoss": (MASKED, 1, [True]),
    "LabelledVoxelsLoss, some": (MASKED, 1, [False, True, True, True]),
    "LabelledVoxelsLoss, none": (MASKED, 1, [False, False]),
    "LabelledVoxelsLoss, no background": (
        LabelledVoxelsLoss(BINARY, ignore_label=255, background=False),
        3,
        [False] + 7 * [True],
    ),
    "WeightedHeadsLoss": (lambda x, y: WeightedHeadsLoss(DICE)([x, x, x], y), 1, [True]),
    "GuidedLoss": (lambda x, y: GuidedLoss(WeightedHeadsLoss(MASKED), ignore_label=255)(guided(x), y), 1, [True]),
    "multiscale_ssim": (ssim, 1, [True]),
}


@pytest.mark.parametrize("size", [(24, 26), (24, 9, 13)], ids=["2-D", "3-D"])
@pytest.mark.parametrize("name", LOSSES)
def test_losses(name: str, size: tuple[int, ...]) -> None:
    loss, channels, answers = LOSSES[name]

    def run(device: torch.device) -> Any:
        logits = torch.zeros(2, 3, *size).to(device).requires_grad_()
        value = loss(logits, torch.ones(2, channels, *size).to(device))
        value.backward()
        return value, logits.grad

    on_cpu = run(CPU)
    with stand_ins(answers):
        assert_like_on_the_cpu(run(CUDA), on_cpu)


def test_no_loss_is_left_out() -> None:
    public = {name for name in losses.__all__ if name != "fit_scales"}  # which takes no tensor
    assert public == {name.split(",")[0] for name in LOSSES}


@pytest.fixture
def without_meta() -> Iterator[None]:
    """MONAI's transforms then give plain tensors, which stand-ins can be."""
    set_track_meta(False)
    yield
    set_track_meta(True)


@pytest.mark.slow
@pytest.mark.parametrize("network", sampled(["unet3plus", "unetplusplus"], "unet3plus"))
@pytest.mark.parametrize("bundle", ["untrained", "untrained_2d"])
@pytest.mark.usefixtures("without_meta")
def test_training_and_validation(
    bundle: str, network: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps of the engines of a bundle's train config, with mixed precision's scaler, and what is kept of them."""
    monkeypatch.setattr(StandIn, "affine", torch.eye(4), raising=False)  # as of a MetaTensor: on the CPU
    root = request.getfixturevalue(bundle)
    choose_network(root, network)
    (root / "logs").mkdir()
    size = image_shape(root)
    config = training_parser(root, {"dataset_dir": str(root), "device": CUDA}, trust=False)
    case = {"image": torch.zeros(2, 1, *size), "label": torch.ones(2, 1, *size)}
    for part in ("train", "validate"):
        config[f"{part}#dataloader"] = [case, case]
        config[f"{part}#handlers"] = []
    config["max_epochs"] = 1
    with stand_ins():
        trainer = config.get_parsed_content("train#trainer")
        evaluator = config.get_parsed_content("validate#evaluator")
        History(root / "logs", class_names(root), print).attach(trainer, evaluator)
        trainer.run()
        evaluator.run()
    assert {p.grad.device for p in trainer.network.parameters()} == {CUDA}
    moments = [state["exp_avg"] for state in trainer.optimizer.state.values()]
    assert {moment.device for moment in moments} == {CUDA}


SECOND = torch.device("cuda", 1)


def test_the_clock_waits_for_the_network_s_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[torch.device] = []
    monkeypatch.setattr(torch.accelerator, "synchronize", waited.append)
    with stand_ins():
        pruning._now(torch.nn.Conv2d(1, 1, 1).to(SECOND))
    assert waited == [SECOND]


def test_memory_is_measured_on_the_bundle_s_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.device] = []

    def answer(device: torch.device) -> int:
        asked.append(device)
        return 0

    for name in ("reset_peak_memory_stats", "memory_allocated", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, answer)
    for name in ("load_case", "case_study", "_segment"):
        monkeypatch.setattr(prediction_cost, name, lambda *_: (None, None))
    monkeypatch.setattr(prediction_cost, "open_bundle", lambda _, device: SimpleNamespace(device=device))
    monkeypatch.setattr(prediction_cost, "variants", lambda _: {"": None})
    monkeypatch.setattr(prediction_cost, "adapt", lambda bundle, _: bundle)
    prediction_cost._peak(Path(), "", {}, str(SECOND), torch.get_num_threads())
    assert asked == [SECOND] * 3
