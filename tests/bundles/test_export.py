"""`unetfamily export`: each form equals the network at any batch and size, and what is wrong leaves no file."""

import json
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest
import torch
from torch import nn

from monai_unetfamily.bundles import FORMS, METADATA, choose_network, export, export_network, open_bundle
from monai_unetfamily.bundles.export import Form
from monai_unetfamily.cli import main
from monai_unetfamily.cli.export import FORM_NAMES
from tests.support.tiers import sampled
from tests.support.tiny import weigh

Said = pytest.CaptureFixture[str]


def test_the_command_offers_all_forms() -> None:
    assert tuple(FORMS) == FORM_NAMES


def inside(file: Path) -> dict[str, Any]:
    """The metadata that a file carries."""
    if file.suffix == ".onnx":
        text = onnxruntime.InferenceSession(file).get_modelmeta().custom_metadata_map[METADATA]
    else:
        with zipfile.ZipFile(file) as archive:
            [text] = [archive.read(name) for name in archive.namelist() if name.endswith(METADATA)]
    return dict(json.loads(text))


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_a_form_gives_the_networks_logits_at_other_sizes_too_and_carries_the_metadata(
    form: str, bundle_2d: Path, tmp_path: Path
) -> None:
    choose_network(bundle_2d, "unet")  # the exporters take half a minute with UNet 3+
    weigh(bundle_2d)
    file = tmp_path / f"network{FORMS[form].suffix}"
    assert main(["export", str(bundle_2d), "--to", form, "-o", str(file)]) == 0
    network, run = open_bundle(bundle_2d, torch.device("cpu")).network, FORMS[form].read(file)
    for size in ((24, 32), (40, 24)):
        x = torch.randn(3, 1, *size)
        with torch.no_grad():
            expected = network(x)
        torch.testing.assert_close(run(x), expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
    own = json.loads((bundle_2d / "configs" / METADATA).read_text())
    assert inside(file)["network_data_format"] == own["network_data_format"]


@pytest.mark.slow
def test_a_form_that_gives_other_logits_is_refused(
    bundle_2d: Path, tmp_path: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = FORMS["torchscript"]
    wrong = Form(right.suffix, right.write, lambda file: lambda window: right.read(file)(window) * 1.001)
    monkeypatch.setitem(export.FORMS, "torchscript", wrong)
    assert main(["export", str(bundle_2d), "--to", "torchscript", "-o", str(tmp_path / "network.ts")]) == 2
    assert "its logits differ by 1.0e-03 of the largest; 0.0001 is allowed" in capsys.readouterr().err
    assert not (tmp_path / "network.ts").exists()


class Branch(nn.Module):
    """A layer whose path depends on its values, which no exporter can follow."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.slow
@pytest.mark.parametrize("form", sampled(["onnx", "torch-export"], "torch-export"))
def test_a_network_that_cannot_be_exported_is_one_line_with_layer_and_reason(
    form: str, bundle_2d: Path, tmp_path: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Sequential(Branch()))
    monkeypatch.setattr(export, "open_bundle", lambda *_, **__: SimpleNamespace(network=network))
    assert main(["export", str(bundle_2d), "--to", form, "-o", str(tmp_path / "network")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"cannot be exported as {form}: layer 1.0: Could not guard on data-dependent expression" in said
    assert said.endswith("choose another form, or change that layer\n")
    assert not (tmp_path / "network").exists()


def test_a_file_is_not_written_over(bundle_2d: Path, tmp_path: Path, capsys: Said) -> None:
    (tmp_path / "mine.ts").write_text("mine")
    assert main(["export", str(bundle_2d), "--to", "torchscript", "-o", str(tmp_path / "mine.ts")]) == 2
    assert "mine.ts: is there already" in capsys.readouterr().err
    assert (tmp_path / "mine.ts").read_text() == "mine"


def test_an_unknown_form_and_a_missing_package_are_told(
    bundle_2d: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="got form 'tflite'; onnx, torch-export, torchscript are allowed"):
        export_network(bundle_2d, "tflite", tmp_path / "network")
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"onnx, onnxscript, onnxruntime, .*pip install 'monai-unetfamily\[export\]'"):
        export_network(bundle_2d, "onnx", tmp_path / "network.onnx")
