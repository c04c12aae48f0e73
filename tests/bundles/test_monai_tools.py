"""MONAI's own tools take every bundle that ships and every kind that is planned, offline, and so does MONAI Label."""

import json
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import monai.bundle
import onnxruntime
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.bundle.utils import load_bundle_config
from monai.data import load_net_with_metadata
from monai.transforms import Compose, LoadImaged, SaveImaged

import monai_unetfamily.bundles
from monai_unetfamily.bundles import (
    SHIPPED,
    build_chosen_network,
    class_names,
    image_shape,
    open_bundle,
    shipped_bundles,
)
from monai_unetfamily.bundles.metadata import image_format
from tests.support.builds import built_once
from tests.support.planned_sets import SETS, planned_bundle
from tests.support.tiers import sampled
from tests.support.tiny import weigh

pytestmark = pytest.mark.slow

SCHEMA = Path(monai_unetfamily.bundles.__path__[0]) / "metadata_schema.json"
WINDOW = 32  # voxels an axis, or fewer where a bundle's are: the recipes' are large


NAMES = [*(folder.name for folder in shipped_bundles()), *SETS]
KINDS = ("hippocampus_mr", "phantom_2d", "few slices", "overlapping classes")
exported = pytest.mark.parametrize("bundle", sampled(NAMES, "phantom_2d", "few slices"), indirect=True)


@pytest.fixture(scope="module", params=sampled(NAMES, *KINDS))
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a shipped or planned bundle; those without weights have random ones."""
    name = request.param
    if name in SETS:
        return planned_bundle(name, tmp_path_factory)
    folder = built_once(tmp_path_factory, f"tools_{name}", lambda folder: copy_with_weights(name, folder))
    return folder / name


def copy_with_weights(name: str, folder: Path) -> None:
    copy = shutil.copytree(SHIPPED / name, folder / name, ignore=shutil.ignore_patterns("logs", "eval", "cache"))
    if not (copy / "models").exists():
        weigh(copy)


def files(bundle: Path, config: str = "inference") -> dict[str, str]:
    named = {"meta_file": "metadata.json", "config_file": f"{config}.yaml"}
    return {name: str(bundle / "configs" / file) for name, file in named.items()}


def exporting(bundle: Path, x: torch.Tensor, file: Path) -> dict[str, Any]:
    weights = str(bundle / "models/model.pt")
    return {"filepath": str(file), "ckpt_file": weights, "input_shape": list(x.shape), **files(bundle)}


def window(bundle: Path) -> torch.Tensor:
    """(1, C, *spatial), as the network is fed."""
    shape = [min(size, WINDOW) for size in image_shape(bundle)]
    channels = image_format(bundle).network_channels
    return torch.randn(1, channels, *shape, generator=torch.Generator().manual_seed(0))


def eager(bundle: Path, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return torch.as_tensor(open_bundle(bundle, torch.device("cpu")).network(x))


def close(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=1e-4 * float(other.abs().max()))


def test_its_metadata_is_as_monai_specifies_it(bundle: Path) -> None:
    monai.bundle.verify_metadata(meta_file=files(bundle)["meta_file"], filepath=SCHEMA)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("task",), None),
        (("version",), "first"),
        (("network_data_format", "inputs"), {}),
        (("network_data_format", "inputs", "image", "channel_def"), {"first": "CT"}),
        (("network_data_format", "outputs", "pred", "value_range"), [0]),
        (("network_data_format", "outputs", "pred", "num_channels"), "two"),
    ],
)
def test_the_schema_refuses_what_the_specification_does_not_allow(
    keys: tuple[str, ...], value: Any, tmp_path: Path
) -> None:
    metadata = json.loads((SHIPPED / "phantom_2d/configs/metadata.json").read_text())
    *path, last = keys
    part = metadata
    for key in path:
        part = part[key]
    part.pop(last) if value is None else part.update({last: value})
    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match="Failed validating"):
        monai.bundle.verify_metadata(meta_file=str(tmp_path / "metadata.json"), filepath=SCHEMA)


def test_its_network_takes_and_gives_what_its_metadata_says(bundle: Path) -> None:
    less = {"_meta_#network_data_format#inputs#image#spatial_shape": [*window(bundle).shape[2:]]}  # of the recipes'
    monai.bundle.verify_net_in_out("network_def", device="cpu", **files(bundle), **less)


@pytest.mark.parametrize("config", ["train", "inference"])
def test_it_has_every_property_that_monai_asks_for(config: str, bundle: Path, tmp_path: Path) -> None:
    case = [{"image": "image.nii.gz", "label": "label.nii.gz"}]
    folders = {"output_dir": str(tmp_path / "logs"), "cache_dir": str(tmp_path / "cache")}  # the bundle is shared
    training = {"train#cases": case, "validate#cases": case, **folders}
    given = training if config == "train" else {"dataset_dir": str(tmp_path)}
    workflow = ConfigWorkflow(
        workflow_type=config, logging_file=False, bundle_root=str(bundle), **given, **files(bundle, config)
    )
    workflow.initialize()
    assert workflow.check_properties() == []


@exported
@pytest.mark.filterwarnings("ignore")  # tracing is deprecated in torch, and still what ckpt_export uses
def test_ckpt_export_gives_what_eager_gives(bundle: Path, tmp_path: Path) -> None:
    x, file = window(bundle), tmp_path / "model.ts"
    monai.bundle.ckpt_export("network_def", use_trace=True, bundle_root=str(bundle), **exporting(bundle, x, file))
    network, metadata, extra = load_net_with_metadata(str(file), more_extra_files=("inference.json",))
    close(network(x), eager(bundle, x))
    assert (
        metadata["network_data_format"]
        == json.loads(Path(files(bundle)["meta_file"]).read_text())["network_data_format"]
    )
    assert b"network_def" in extra["inference.json"]


@exported
@pytest.mark.filterwarnings("ignore")  # of torch's exporter, about itself
def test_onnx_export_gives_what_eager_gives(bundle: Path, tmp_path: Path) -> None:
    x, file = window(bundle), tmp_path / "model.onnx"
    monai.bundle.onnx_export("network_def", **exporting(bundle, x, file))
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    [output] = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    close(torch.from_numpy(output), eager(bundle, x))


def test_monai_loads_the_network_with_its_weights_from_any_directory(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    network = monai.bundle.load(bundle.name, bundle_dir=bundle.parent, device="cpu")
    assert_weights(network, bundle)


@pytest.mark.parametrize("config", ["train.yaml", "inference.yaml", "train.json"])
def test_a_loaded_config_keeps_the_metadata_and_builds_the_network(
    config: str, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    parser = load_bundle_config(str(bundle), config)
    assert parser["_meta_"] == json.loads((bundle / "configs/metadata.json").read_text())
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load(bundle / "models/model.pt", weights_only=True))


def test_a_workflow_that_is_told_the_bundles_root_loads_its_weights_from_any_directory(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    how = {"workflow_type": "inference", "logging_file": False, "dataset_dir": str(tmp_path)}
    how |= {"device": "$torch.device('cpu')"}
    config = str(bundle / "configs/inference.yaml")
    workflow = monai.bundle.create_workflow(config_file=config, bundle_root=str(bundle), **how)
    load = workflow.parser.get_parsed_content("handlers#0")
    load(workflow.evaluator)
    assert_weights(workflow.evaluator.network, bundle)
    lost = monai.bundle.create_workflow(config_file=config, **how)
    with pytest.raises(FileNotFoundError, match="models/model.pt"):
        lost.parser.get_parsed_content("handlers#0")(lost.evaluator)


def assert_weights(network: torch.nn.Module, bundle: Path) -> None:
    saved = torch.load(bundle / "models/model.pt", weights_only=True)
    state = network.state_dict()
    assert state.keys() == saved.keys()
    assert all(torch.equal(state[name], saved[name]) for name in saved)


def test_monai_label_finds_all_that_its_bundle_task_reads(bundle: Path) -> None:
    """As its monailabel/tasks/infer/bundle.py reads a bundle, with our task: one config, bundle_root and device."""
    parser = ConfigParser()
    parser.read_config(bundle / "configs/inference.yaml")
    assert parser["network_def"] == "@_meta_#network"  # which .ci/monai_label_task.py replaces by this
    parser["network_def"] = {
        "_target_": "monai_unetfamily.bundles.networks.build_chosen_network",
        "bundle_root": "@bundle_root",
    }
    parser.config.update({"bundle_root": str(bundle), "device": "cpu"})
    network = parser.get_parsed_content("network_def", instantiate=True)
    network.load_state_dict(torch.load(bundle / "models/model.pt", weights_only=True))

    offered = parser.get_parsed_content("displayable_configs", instantiate=True)
    parser["displayable_configs"].update(dict.fromkeys(offered, 0.75))
    parser.parse()
    assert parser.get_parsed_content("inferer", instantiate=True).overlap == 0.75

    steps = {part: parser.get_parsed_content(part, instantiate=True) for part in ("preprocessing", "postprocessing")}
    assert all(isinstance(step, Compose) for step in steps.values())
    assert isinstance(steps["preprocessing"].transforms[0], LoadImaged)
    assert sum(isinstance(step, SaveImaged) for step in steps["postprocessing"].transforms) == 1  # which it leaves out

    formats = json.loads((bundle / "configs/metadata.json").read_text())["network_data_format"]
    (image,), (pred,) = formats["inputs"], formats["outputs"]
    assert (image, pred) == ("image", "pred")  # the keys of the transforms
    assert len(formats["inputs"][image]["spatial_shape"]) == image_format(bundle).axes
    labels = {name.lower(): int(channel) for channel, name in formats["outputs"][pred]["channel_def"].items()}
    background = {"background": 0} if 0 in class_names(bundle) else {}
    assert labels.items() >= background.items()
    assert set(labels) >= {name.lower() for name in class_names(bundle).values()}


def test_the_network_that_monai_label_builds_takes_no_other_weights_though_it_loads_what_fits() -> None:
    bundle = SHIPPED / "hippocampus_mr"
    network = deepcopy(build_chosen_network(str(bundle)))  # as it copies it for each device
    weights = torch.load(bundle / "models/model.pt", weights_only=True)
    network.load_state_dict(weights, strict=False)
    first = next(iter(weights))
    less = {name: weight for name, weight in weights.items() if name != first}
    for other in ({"network": weights}, less, weights | {"other": weights[first]}):
        with pytest.raises(ValueError, match="these weights do not fit PlainUNet"):
            network.load_state_dict(other, strict=False)
