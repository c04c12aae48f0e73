"""On a CUDA device: the numbers and labels of the CPU, and training in mixed precision and in two processes."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from monai_unetfamily.bundles import Bundle, find_bundle, open_bundle
from monai_unetfamily.data import find_studies
from monai_unetfamily.inferers import WindowInferer
from monai_unetfamily.nets import list_networks
from monai_unetfamily.nets.layers import resize
from monai_unetfamily.nets.layers.upsampling import Upsampled, coarse_convolution
from monai_unetfamily.prediction import load_case, predict_volume, prediction
from monai_unetfamily.training import read_history, train
from tests.inferers.test_early_exit import HELD, full, guided
from tests.support.family import heads_of, small
from tests.training.test_distributed import PROCESSES, batch, loss_of, supervised

pytestmark = pytest.mark.gpu

FLOAT32 = {"rtol": 1e-3, "atol": 1e-4}  # sums of thousands of products, in another order


@pytest.fixture(autouse=True)
def _no_tf32() -> Iterator[None]:
    """float32 is float32: torch lets convolutions round their factors to TF32 by default."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.fixture
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prediction without autocast, which a GPU has otherwise."""

    def network(bundle: Bundle) -> Callable[[Tensor], Any]:
        return torch.no_grad()(bundle.network)

    monkeypatch.setattr(prediction, "_network", network)


@pytest.fixture
def images(phantoms: Path) -> list[Path]:
    return sorted((phantoms / "imagesTr").iterdir())


def opened(device: str) -> Bundle:
    """The shipped bundle, trained: its labels are no ties that rounding decides."""
    return open_bundle(find_bundle("phantom_ct"), torch.device(device))


def stitched_on_cpu() -> Bundle:
    """The network on the GPU, windows' scores summed on the CPU."""
    bundle = opened("cuda")
    assert isinstance(bundle.inferer, WindowInferer)
    bundle.inferer.device, bundle.inferer.sw_device = "cpu", "cuda"
    return bundle


def share_that_differs(a: Bundle, b: Bundle, images: list[Path]) -> float:
    pairs = [(predict_volume(a, image), predict_volume(b, image)) for image in images]
    assert any(labels.any() for labels, _ in pairs)
    return float(np.mean([(ours != theirs).mean() for ours, theirs in pairs]))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", list_networks())
@torch.no_grad()
def test_networks_agree_with_the_cpu(name: str, dims: int) -> None:
    net, x = small(name, dims).eval(), torch.randn(2, 2, *(20, 23, 17)[:dims])
    expected = net(x)
    torch.testing.assert_close(net.cuda()(x.cuda()).cpu(), expected, **FLOAT32)


@pytest.mark.parametrize("name", list_networks())
def test_gradients_agree_with_the_cpu(name: str) -> None:
    net = small(name, 3, deep_supervision=True).double().train()
    x = torch.randn(2, 2, 20, 23, 17, dtype=torch.float64)
    gradients = []
    for device in ("cpu", "cuda"):
        heads = heads_of(net.to(device)(x.to(device)))
        grads = torch.autograd.grad(torch.stack([(h**2).mean() for h in heads]).sum(), list(net.parameters()))
        gradients.append([grad.cpu() for grad in grads])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dims", [2, 3])
def test_the_coarse_grid_form_is_the_plain_one(dims: int, dtype: torch.dtype) -> None:
    """Which a GPU takes only where the benchmark asks for it."""
    grids = {2: ((5, 7), (11, 13)), 3: ((3, 5, 4), (7, 10, 9))}
    coarse, size = grids[dims]
    x = torch.randn(2, 8, *coarse, dtype=dtype, device="cuda", requires_grad=True)
    kernel = torch.randn(4, 8, *[3] * dims, dtype=dtype, device="cuda", requires_grad=True)
    convolve = F.conv2d if dims == 2 else F.conv3d
    plain, fast = convolve(resize(x, size), kernel, padding=1), coarse_convolution(Upsampled(x, size), kernel)
    close = FLOAT32 if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(fast, plain, **close)
    of_plain, of_fast = (torch.autograd.grad((y**2).sum(), (x, kernel)) for y in (plain, fast))
    torch.testing.assert_close(of_fast, of_plain, rtol=close["rtol"], atol=100 * close["atol"])


@pytest.mark.parametrize("held", HELD.values(), ids=HELD)
@pytest.mark.parametrize("background", [True, False])
@torch.no_grad()
def test_the_early_exit_gives_the_labels_of_the_full_run(background: bool, held: list[bool]) -> None:
    net, x = guided(3, background, held)
    net, x = net.cuda(), x.cuda()
    early, reference = net(x), full(net, x)
    labels = [y.argmax(1) if background else y > 0 for y in (early, reference)]
    assert torch.equal(*labels)


@pytest.mark.usefixtures("in_float32")
def test_labels_in_float32_agree_with_the_cpu(images: list[Path]) -> None:
    assert share_that_differs(opened("cpu"), opened("cuda"), images) < 1e-4


def test_labels_in_half_precision_nearly_agree_with_the_cpu(images: list[Path]) -> None:
    assert share_that_differs(opened("cpu"), opened("cuda"), images) < 0.01


def test_scores_summed_on_the_cpu_and_on_the_gpu_come_to_the_same_labels(images: list[Path]) -> None:
    assert share_that_differs(opened("cuda"), stitched_on_cpu(), images) < 1e-4


@pytest.mark.parametrize("form", ["ensemble", "mirrored"])
def test_ensembles_and_mirrored_windows_agree_with_the_cpu(form: str, images: list[Path], in_float32: None) -> None:
    labels = []
    for device in ("cpu", "cuda"):
        bundle = opened(device)
        inferer = WindowInferer((64, 56, 40), mirror_axes=(1,), sw_batch_size=2, skip_below=0.0)
        members = [bundle, bundle] if form == "ensemble" else [replace(bundle, inferer=inferer)]
        [study] = find_studies(images[:1]).studies
        *_, last = prediction.segment(members, load_case(bundle, study)[1])
        labels.append(last.labels)
    assert labels[0].any()
    assert (labels[0] != labels[1]).mean() < 1e-3


def test_trains_in_mixed_precision(untrained: Path, phantoms: Path) -> None:
    train(untrained, phantoms, minutes=0.001, device="cuda")
    (epoch,) = read_history(untrained / "logs/history.csv")
    assert 0 < epoch.loss < 10


def work(rank: int, folder: str) -> None:
    os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
    torch.backends.cudnn.allow_tf32 = False
    torch.cuda.set_device(rank)
    dist.init_process_group(
        "nccl",
        init_method=f"file://{folder}/meet",
        rank=rank,
        world_size=PROCESSES,
        timeout=timedelta(seconds=60),
        device_id=torch.device("cuda", rank),
    )
    gradients = {}
    for name in list_networks():
        net = DistributedDataParallel(supervised(name).cuda(), device_ids=[rank])
        loss_of(net, batch(rank).cuda()).backward()
        gradients[name] = {key: p.grad.cpu() for key, p in net.module.named_parameters() if p.grad is not None}
    torch.save(gradients, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture
def two_devices() -> None:
    if (devices := torch.cuda.device_count()) < PROCESSES:
        pytest.skip(f"{devices} CUDA device here; {PROCESSES} are needed")


@pytest.mark.usefixtures("two_devices")
def test_gradients_of_two_processes_are_the_mean_of_both(tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(work, (str(tmp_path),), PROCESSES, start_method="spawn")
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(PROCESSES)]
    for name in list_networks():
        net = supervised(name).cuda()
        torch.stack([loss_of(net, batch(rank).cuda()) for rank in range(PROCESSES)]).mean().backward()
        for key, p in net.named_parameters():
            assert torch.equal(ranks[0][name][key], ranks[1][name][key]), (name, key)
            torch.testing.assert_close(ranks[0][name][key], p.grad.cpu(), **FLOAT32)
