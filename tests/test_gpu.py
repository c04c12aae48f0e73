"""On a CUDA device: the same labels as on the CPU, and training in mixed precision."""

from pathlib import Path

import pytest
import torch
from family import small

from monai_unetfamily.bundles.bundle import open_bundle
from monai_unetfamily.inference.predictor import predict_volume
from monai_unetfamily.nets import list_networks
from monai_unetfamily.training.history import read_history
from monai_unetfamily.training.run import train

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("name", list_networks())
def test_networks_agree_with_the_cpu(name: str) -> None:
    net = small(name, 3).double().eval()
    x = torch.randn(1, 2, 20, 23, 17, dtype=torch.float64)
    torch.testing.assert_close(net.cuda()(x.cuda()).cpu(), net.cpu()(x))


def test_labels_agree_with_the_cpu(bundle: Path, phantoms: Path) -> None:
    for image in sorted((phantoms / "imagesTr").iterdir()):
        cpu, gpu = (predict_volume(open_bundle(bundle, torch.device(d)), image) for d in ("cpu", "cuda"))
        assert (cpu != gpu).mean() < 0.01  # half precision, random weights: many ties


def test_trains_in_mixed_precision(untrained: Path, phantoms: Path) -> None:
    train(untrained, phantoms, minutes=0.001, device="cuda")
    (epoch,) = read_history(untrained / "logs/history.csv")
    assert 0 < epoch.loss < 10
