"""The planner's rules: literal fingerprints against the decisions that they must lead to."""

from dataclasses import replace
from math import inf, nan, prod
from typing import Any

import pytest
import torch
from monai.losses import DiceCELoss

from monai_unetfamily.losses import GuidedLoss, LabelledVoxelsLoss, WeightedHeadsLoss
from monai_unetfamily.nets import create_network, list_networks, peak_of_training
from monai_unetfamily.planning.decisions import format_decisions
from monai_unetfamily.planning.fingerprint import Fingerprint
from monai_unetfamily.planning.memory import USABLE, Network, measure_step
from monai_unetfamily.planning.plan import Plan, Scaling
from monai_unetfamily.planning.planner import make_plan
from monai_unetfamily.planning.topology import LEAST, plan_stages
from tests.support.fingerprints import FOREGROUND, fingerprint
from tests.support.tiers import sampled

pytestmark = pytest.mark.slow

THICK_CT = fingerprint((512, 512, 90), (0.79, 0.79, 5.0), cases=41)
CROP_MR = fingerprint((35, 50, 36), classes=("Anterior", "Posterior"), modality="MR", channels=("MRI",), cases=208)
PICTURES = fingerprint((512, 640), (1, 1), modality="", channels=("red", "green", "blue"), dtype="uint8")
FEW_SLICES = fingerprint((216, 256, 10), (1.5, 1.5, 10.0), modality="MR", channels=("cine",), cases=100)
ORGANS = fingerprint((256, 256, 150), (1.0, 1.0, 1.5), ("liver", "left_kidney", "right_kidney"), cases=30)
TWO_CHANNELS = fingerprint((160, 192, 140), modality="MR", channels=("T2", "ADC"))


def small(facts: Fingerprint, **options: Any) -> Plan:
    """A plan with narrow networks, which are measured quickly."""
    return make_plan(facts, **{"features": (8, 16, 32), **options})


def reason(plan: Plan, what: str) -> str:
    return next(decision.reason for decision in plan.decisions if decision.what == what)


TABLE: list[tuple[str, Fingerprint, dict[str, Any]]] = [
    (
        "thick slices",
        THICK_CT,
        {
            "spatial_dims": 3,
            "spacing": (0.79, 0.79, 5.0),
            "scaling": Scaling("range", -41, 176),
            "mirror_axes": (0, 1, 2),
            "balanced": True,
        },
    ),
    (
        "isotropic crop",
        CROP_MR,
        {
            "spatial_dims": 3,
            "patch": (40, 56, 40),
            "spacing": (1.0, 1.0, 1.0),
            "scaling": Scaling("z-score"),
            "mirror_axes": (0, 2),  # anterior and posterior lie opposite each other along axis 1
            "balanced": False,
            "crop": (40, 56, 40),
        },
    ),
    (
        "pictures",
        PICTURES,
        {"spatial_dims": 2, "spacing": None, "slice_axis": None, "scaling": Scaling("range", 0, 255)},
    ),
    (
        "few thick slices",
        FEW_SLICES,
        {
            "spatial_dims": 2,
            "slice_axis": 2,
            "neighbours": 1,
            "spacing": (1.5, 1.5, 0.0),
            "patch": (224, 256),
            "crop": (224, 256, 3),
            "mirror_axes": (0, 1),
            "balanced": True,
        },
    ),
    ("sides", ORGANS, {"mirror_axes": (), "spatial_dims": 3}),
    ("two channels", TWO_CHANNELS, {"scaling": Scaling("z-score"), "spatial_dims": 3}),
]


@pytest.mark.parametrize(("facts", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_decisions_follow_from_the_facts(facts: Fingerprint, expected: dict[str, Any]) -> None:
    plan = small(facts)
    assert {name: getattr(plan, name) for name in expected} == expected
    assert plan.network.in_channels == len(facts.channels) * (2 * plan.neighbours + 1)
    assert plan == small(facts)  # and from nothing else


@pytest.mark.parametrize("facts", [row[1] for row in TABLE], ids=[row[0] for row in TABLE])
def test_each_decision_has_one_reason_in_a_sentence(facts: Fingerprint) -> None:
    decisions = small(facts).decisions
    assert len({decision.what for decision in decisions}) == len(decisions) >= 18
    assert all(decision.reason.endswith(".") and "  " not in decision.reason for decision in decisions)
    assert format_decisions(decisions).count("\n- **") == len(decisions) - 1


def test_an_axis_is_halved_while_spacings_are_close_and_four_voxels_left() -> None:
    stages = plan_stages((128, 128, 32), (0.79, 0.79, 5.0), most=6)
    assert stages.strides == ((2, 2, 1), (2, 2, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))
    assert stages.kernels == ((3, 3, 1), (3, 3, 1), (3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))
    assert [n // t for n, t in zip((128, 128, 32), stages.total, strict=True)] == [LEAST] * 3


def test_an_axis_that_others_have_outgrown_keeps_its_kernel() -> None:
    stages = plan_stages((256, 256, 8), (1.0, 1.0, 1.0), most=6)
    assert stages.strides == ((2, 2, 2), (2, 2, 1), (2, 2, 1), (2, 2, 1), (2, 2, 1))
    assert set(stages.kernels) == {(3, 3, 3)}


def test_thick_slices_take_the_tenth_percentile_across_alone() -> None:
    spacings = [(0.8, 0.8, 2.0)] * 3 + [(0.8, 0.8, 5.0)] * 7
    assert small(fingerprint((512, 512, 90), spacings=spacings)).spacing == (0.8, 0.8, 2.0)
    assert small(fingerprint((100, 100, 90), spacings=spacings)).spacing == (0.8, 0.8, 5.0)  # as many slices as voxels
    thin = [(2.0, 2.0, 1.0)] * 3 + [(2.0, 2.0, 7.0)] * 7
    assert small(fingerprint((512, 512, 90), spacings=thin)).spacing == (2.0, 2.0, 2.0)  # never finer than the slice


def test_slices_may_lie_across_any_axis_and_one_slice_has_no_neighbours() -> None:
    sagittal = small(fingerprint((12, 256, 256), (6.0, 1.0, 1.0)))
    assert (sagittal.slice_axis, sagittal.crop, sagittal.spacing) == (0, (3, 256, 256), (0.0, 1.0, 1.0))
    single = small(fingerprint((256, 256, 1)))
    assert (single.spatial_dims, single.neighbours, single.crop) == (2, 0, (256, 256, 1))


@pytest.mark.parametrize(("asked", "spatial_dims", "neighbours"), [(2, 2, 1), (3, 3, 0)])
def test_axes_can_be_asked_for(asked: int, spatial_dims: int, neighbours: int) -> None:
    for facts in (CROP_MR, FEW_SLICES):
        plan = small(facts, spatial_dims=asked)
        assert (plan.spatial_dims, plan.neighbours) == (spatial_dims, neighbours)
        assert "asked for" in reason(plan, "dimensions")


@pytest.mark.parametrize(
    ("facts", "absent", "guided"),
    [
        (ORGANS, None, False),
        (ORGANS, {"liver": 0.1, "left_kidney": 0.49}, False),
        (ORGANS, {"liver": 0.1, "left_kidney": 0.5}, True),
        (fingerprint(lacking=1), None, False),  # 5 % of the cases
        (fingerprint(lacking=2), None, True),
        (fingerprint(lacking=20), {"spleen": 1.0}, False),  # what no case has cannot be learned
    ],
)
def test_a_guide_comes_where_classes_are_often_absent(
    facts: Fingerprint, absent: dict[str, float] | None, guided: bool
) -> None:
    plan = small(facts, absent=absent)
    assert plan.network.name == ("unet3plus" if guided else "unetplusplus")
    assert plan.network.options.get("cgm", False) is guided
    assert small(facts, absent=absent, network="unet3plus").network.options.get("cgm", False) is guided
    without = small(facts, absent=absent, network="unet")
    assert "cgm" not in without.network.options
    assert ("unet has no guide" in reason(without, "guide (CGM)")) is guided


@pytest.mark.parametrize("name", sampled(list_networks(), "fcn8s", "unetplusplus", "unet3plus"))
@pytest.mark.parametrize("facts", [CROP_MR, FEW_SLICES, THICK_CT], ids=["crop", "slices", "thick"])
def test_every_member_can_be_planned_and_built(name: str, facts: Fingerprint) -> None:
    plan = small(facts, network=name, memory_gb=2)
    with torch.device("meta"), torch.inference_mode():
        network = create_network(name, **plan.network.arguments).eval()
        logits = network(torch.zeros(1, plan.network.in_channels, *plan.patch))
    assert logits.shape == (1, plan.network.out_channels, *plan.patch)


@pytest.mark.parametrize("memory", [2.0, 8.0, 24.0])
def test_a_step_fits_into_the_memory_and_the_next_patch_does_not(memory: float) -> None:
    plan = small(THICK_CT, memory_gb=memory, network="unet")
    limit = memory * USABLE * 2**30
    cost = measure_step(plan.network, plan.patch, mixed_precision=True)
    assert cost.bytes(plan.batch_size) <= limit
    assert cost.bytes(plan.batch_size + 1) > limit
    smaller = small(THICK_CT, memory_gb=memory / 2, network="unet")
    assert prod(smaller.patch) < prod(plan.patch)


def test_memory_that_holds_no_pair_sums_gradients_and_less_is_refused() -> None:
    wide = {"network": "unet", "features": (128, 64, 64)}
    image = fingerprint((256, 256), (1, 1))
    plan = make_plan(image, memory_gb=0.2, **wide)  # type: ignore[arg-type]
    assert (plan.batch_size, plan.accumulation) == (1, 2)
    assert prod(plan.patch) > 128**2
    with pytest.raises(ValueError, match=r"memory is 0\.01 GB; .* give more"):
        make_plan(image, memory_gb=0.01, **wide)  # type: ignore[arg-type]


def test_a_cost_is_linear_in_the_batch_and_in_the_voxels() -> None:
    network = Network("unetplusplus", 2, 1, 3, {"features": [8, 16], "deep_supervision": True})
    one, four = (measure_step(network, (n, n), mixed_precision=True).patch_bytes for n in (64, 128))
    assert four == pytest.approx(4 * one, rel=0.01)


@pytest.mark.parametrize(
    ("name", "classes", "options"),
    [("unetplusplus", 3, {}), ("unet3plus", 14, {"cgm": True, "skip_channels": 4}), ("fcn8s", 3, {})],
)
def test_a_cost_is_that_of_a_real_step_with_the_bundles_own_loss(
    name: str, classes: int, options: dict[str, Any]
) -> None:
    network = Network(name, 3, 1, classes, {"features": [8, 16, 16, 16], "deep_supervision": True, **options})
    cost = measure_step(network, (32, 32, 32), mixed_precision=False)
    overlap = LabelledVoxelsLoss(DiceCELoss(to_onehot_y=True, softmax=True), ignore_label=255)
    loss = GuidedLoss(WeightedHeadsLoss(overlap), ignore_label=255)
    real = peak_of_training(
        create_network(name, **network.arguments),
        (1, 1, 32, 32, 32),
        lambda output: loss(output, torch.zeros(1, 1, 32, 32, 32)).backward(),
    )
    assert real == pytest.approx(cost.patch_bytes, rel=0.1)  # a CPU copies here and there, and saves elsewhere


def test_half_precision_takes_half_of_the_maps_alone() -> None:
    network = Network("unet", 3, 1, 3, {"features": [32, 64]})
    full, half = (measure_step(network, (32, 32, 32), mixed_precision=mixed) for mixed in (False, True))
    assert 0.5 < half.patch_bytes / full.patch_bytes < 0.6  # logits and loss stay in 32 bits
    assert half.weight_bytes == full.weight_bytes * 18 / 16


def test_a_cpu_gets_narrow_networks_and_little_work() -> None:
    plan = make_plan(THICK_CT, gpu=False)
    assert plan.network.options["features"][:2] == [16, 32]
    assert measure_step(plan.network, plan.patch, mixed_precision=False).macs <= 25e9
    assert plan.batch_size == 2


def test_on_a_cpu_small_patches_come_together() -> None:
    plan = make_plan(CROP_MR, gpu=False, spatial_dims=2)
    work = measure_step(plan.network, plan.patch, mixed_precision=False).macs * plan.batch_size
    assert plan.batch_size == 16 or work <= 4e9
    assert plan.batch_size > 8


def test_few_minutes_on_a_cpu_make_the_patch_smaller() -> None:
    sizes = [prod(make_plan(THICK_CT, gpu=False, minutes=minutes).patch) for minutes in (1, 4, 10, None)]
    assert sizes[0] == sizes[1] < sizes[2] <= sizes[3]
    assert make_plan(THICK_CT, minutes=1).patch == make_plan(THICK_CT).patch


def test_the_batch_grows_to_a_twentieth_of_the_data_set() -> None:
    assert small(CROP_MR).batch_size == round(0.05 * 208 * (35 * 50 * 36) / (40 * 56 * 40))
    assert small(fingerprint((35, 50, 36), cases=5)).batch_size == 2


def test_limits_of_ct_can_be_asked_for() -> None:
    assert small(fingerprint(pooled=()), hu=(-175.0, 250.0)).scaling == Scaling("range", -175, 250)


def test_limits_of_scaled_ct_are_not_rounded_to_nothing() -> None:
    scaled = fingerprint(pooled=(replace(FOREGROUND, p00_5=0.21, p99_5=0.4567891),))
    assert small(scaled).scaling == Scaling("range", 0.21, 0.4568)


def test_minutes_are_kept_and_epochs_stand_beside_them() -> None:
    schedule = small(CROP_MR, minutes=30).schedule
    assert (schedule.minutes, schedule.epochs) == (30, 300)
    assert "30 minutes" in next(d.value for d in small(CROP_MR, minutes=30).decisions if d.what == "schedule")


@pytest.mark.parametrize(
    ("facts", "options", "message"),
    [
        (CROP_MR, {"memory_gb": 0}, "memory is 0 GB; more than 0"),
        (CROP_MR, {"features": ()}, r"features is \(\); one width a stage"),
        (CROP_MR, {"minutes": 0}, "minutes is 0; more than 0"),
        (CROP_MR, {"minutes": nan}, "minutes is nan; more than 0"),
        (CROP_MR, {"minutes": inf}, "minutes is inf; more than 0"),
        (CROP_MR, {"network": "vnet"}, "network 'vnet' is unknown; allowed are fcn32s"),
        (PICTURES, {"spatial_dims": 3}, "spatial_dims is 3; pictures allow 2"),
        (fingerprint(pooled=()), {}, "no case has foreground"),
        (THICK_CT, {"hu": (250.0, -175.0)}, "hu is 250 to -175; a lower"),
        (THICK_CT, {"hu": (nan, 250.0)}, "hu is nan to 250; a lower"),
        (fingerprint(pooled=(replace(FOREGROUND, p00_5=7, p99_5=7),)), {}, "all labelled voxels of the CT hold 7"),
    ],
)
def test_what_cannot_be_planned_is_refused(facts: Fingerprint, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(facts, **options)
