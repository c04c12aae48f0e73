"""Weights from strangers: tensors alone, held against the network, by every door; what else they hold does not run."""

import builtins
import json
import os
import pickle
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from monai_unetfamily.bundles import WEIGHTS, find_weights, hash_bundle, open_bundle, read_card, start_from
from monai_unetfamily.bundles.metadata import SAFE_WEIGHTS
from monai_unetfamily.bundles.weights import load_weights
from monai_unetfamily.cli import main
from monai_unetfamily.nets import SkipFCN

CPU = torch.device("cpu")


class Call:
    """Pickled, it calls a function when it is read."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


def shell(canary: Path) -> Call:
    return Call(os.system, f"touch '{canary}'")


def write_script(file: Path, canary: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(1, 1)), file)


def write_archive(file: Path, canary: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps(shell(canary), protocol=2))
        archive.writestr("x/version", "3\n")
        archive.writestr("x/byteorder", "little")


def write_tar(file: Path, canary: Path) -> None:
    part = file.with_name("pickle")
    part.write_bytes(pickle.dumps(shell(canary)))
    with tarfile.open(file, "w") as archive:
        archive.add(part, "pickle")


PICKLES: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "beside a tensor": (lambda f, c: torch.save({"a": torch.ones(1), "b": shell(c)}, f), "needs posix.system, which"),
    "in torch's old form": (
        lambda f, c: torch.save({"a": shell(c)}, f, _use_new_zipfile_serialization=False),
        "needs posix.system, which",
    ),
    "bare": (lambda f, c: f.write_bytes(pickle.dumps(shell(c))), "not a file of weights"),
    "bare, as text": (lambda f, c: f.write_bytes(pickle.dumps(shell(c), protocol=0)), "needs posix.system, which"),
    "eval": (
        lambda f, c: f.write_bytes(pickle.dumps(Call(builtins.eval, f"open({str(c)!r}, 'w')"), protocol=2)),
        "needs eval, which",
    ),
    "a whole network": (lambda f, c: torch.save(nn.Linear(1, 1), f), "needs torch.nn.modules.linear.Linear, which"),
    "in a zip archive": (write_archive, "needs posix.system, which"),
    "in a tar archive": (write_tar, "not a file of weights"),
    "a program": (write_script, "a program \\(TorchScript\\)"),
    "text": (lambda f, c: f.write_text("no weights"), "not a file of weights"),
    "nothing": (lambda f, c: f.write_bytes(b""), "not a file of weights"),
    "a list": (lambda f, c: torch.save([torch.ones(1)], f), "holds list; a state_dict is needed"),
}


@pytest.mark.skipif(os.name != "posix", reason="the shell that is called is posix.system")
@pytest.mark.parametrize("name", PICKLES)
def test_what_a_pickle_would_run_is_named_and_does_not_run(name: str, tmp_path: Path, canary: Path) -> None:
    write, message = PICKLES[name]
    write(tmp_path / "evil.pt", canary)
    with pytest.raises(ValueError, match=f"evil.pt: .*{message}") as raised:
        load_weights(nn.Linear(1, 1), tmp_path / "evil.pt")
    assert "\n" not in str(raised.value)
    assert not canary.exists()


def test_the_pickle_is_real(tmp_path: Path, canary: Path) -> None:
    torch.save(shell(canary), tmp_path / "evil.pt")
    torch.load(tmp_path / "evil.pt", weights_only=False)
    assert canary.exists()


@pytest.mark.slow
def test_each_door_refuses_it_in_one_line(
    bundle: Path, phantoms: Path, tmp_path: Path, canary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = str(min((phantoms / "imagesTr").iterdir()))
    evil, dataset = bundle / "models" / WEIGHTS, ["--dataset", str(phantoms)]
    torch.save({"a": shell(canary)}, evil)
    shutil.copy(evil, bundle / "models/checkpoint.pt")
    out = str(tmp_path / "out")
    for command in (
        ["predict", str(bundle), image, "-o", out, "--trust"],
        ["calibrate", str(bundle), *dataset],
        ["prune", str(bundle), "--level", "1", "-o", out],
        ["train", str(bundle), *dataset, "--epochs", "1", "-o", out, "--init-from", str(evil)],
        ["train", str(bundle), *dataset, "--epochs", "1", "--resume"],
    ):
        assert main(command) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "is a pickle that needs posix.system, which is no tensor, and nothing of it was run" in line
        assert not canary.exists()


# safetensors


def as_safetensors(root: Path) -> Path:
    """The bundle with its weights written by safetensors in place of torch."""
    weights = root / "models" / WEIGHTS
    save_file(torch.load(weights, weights_only=True), root / "models" / SAFE_WEIGHTS)
    weights.unlink()
    return root


def weights_of(root: Path) -> list[Tensor]:
    return list(open_bundle(root, CPU).network.state_dict().values())


def test_a_bundle_of_safetensors_is_the_same_bundle(bundle: Path, tmp_path: Path) -> None:
    before = weights_of(bundle)
    as_safetensors(bundle)
    assert all(torch.equal(one, other) for one, other in zip(before, weights_of(bundle), strict=True))
    assert find_weights(bundle) == bundle / "models" / SAFE_WEIGHTS
    assert read_card(bundle).weights
    hashed = hash_bundle(bundle)
    with (bundle / "models" / SAFE_WEIGHTS).open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b"\x3c")
    assert hash_bundle(bundle) != hashed


def test_of_both_files_the_one_counts_that_training_writes(bundle: Path) -> None:
    """MONAI's own run of a bundle reads this one too."""
    ours = torch.load(bundle / "models" / WEIGHTS, weights_only=True)
    save_file({key: torch.zeros_like(weight) for key, weight in ours.items()}, bundle / "models" / SAFE_WEIGHTS)
    hashed = hash_bundle(bundle)
    assert all(torch.equal(one, other) for one, other in zip(ours.values(), weights_of(bundle), strict=True))
    (bundle / "models" / SAFE_WEIGHTS).unlink()
    assert hash_bundle(bundle) == hashed


@pytest.mark.slow
def test_the_commands_take_safetensors(bundle: Path, phantoms: Path, tmp_path: Path) -> None:
    image, out = min((phantoms / "imagesTr").iterdir()), tmp_path / "out"
    predict = ["predict", str(bundle), str(image), "--no-previews", "--device", "cpu", "-o"]
    assert main([*predict, str(out / "torch")]) == 0
    as_safetensors(bundle)
    assert main([*predict, str(out / "safe")]) == 0
    labels = [(out / name / image.name).read_bytes() for name in ("torch", "safe")]
    assert labels[0] == labels[1]
    assert main(["calibrate", str(bundle), "--dataset", str(phantoms)]) == 0


def test_training_does_not_hide_safetensors_behind_its_own(
    bundle: Path, phantoms: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    as_safetensors(bundle)
    assert main(["train", str(bundle), "--dataset", str(phantoms)]) == 2
    assert "model.safetensors: training would replace these weights" in capsys.readouterr().err


def test_training_starts_from_safetensors(bundle: Path) -> None:
    network, file = open_bundle(bundle, CPU).network, find_weights(as_safetensors(bundle))
    begun = [weight.clone() for weight in network.state_dict().values()]
    nn.init.zeros_(next(network.parameters()))
    start_from(network, file)
    assert all(torch.equal(one, other) for one, other in zip(begun, network.state_dict().values(), strict=True))


def header(stated: Any, values: bytes = bytes(8)) -> bytes:
    text = stated if isinstance(stated, bytes) else json.dumps(stated).encode()
    return struct.pack("<Q", len(text)) + text + values


LIES = {
    "nothing": b"",
    "a header longer than the file": struct.pack("<Q", 2**62) + b"{}",
    "no JSON": header(b"{weight: 1}"),
    "a list": header([1]),
    "more values than there are": header({"weight": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}),
    "fewer values than its shape": header({"weight": {"dtype": "F32", "shape": [4], "data_offsets": [0, 8]}}),
    "values before the file": header({"weight": {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}}),
    "a shape beyond all numbers": header({"weight": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 8]}}),
    "an unknown kind": header({"weight": {"dtype": "PICKLE", "shape": [2], "data_offsets": [0, 8]}}),
    "the same values twice": header(
        {key: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for key in ("weight", "bias")}
    ),
    "nested without end": header(b"[" * 100_000),
    "a pickle": pickle.dumps(Path("x")),
}


@pytest.mark.parametrize("name", LIES)
def test_a_safetensors_file_that_lies_is_one_clear_line(name: str, tmp_path: Path) -> None:
    file = tmp_path / "lying.safetensors"
    file.write_bytes(LIES[name])
    with pytest.raises(
        ValueError, match="lying.safetensors: cannot be read as safetensors .*get the file anew"
    ) as told:
        load_weights(nn.Linear(2, 1, bias=False), file)
    assert "\n" not in str(told.value)


def test_a_safetensors_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    file, network = tmp_path / "cut.safetensors", nn.Linear(2, 1)
    save_file(network.state_dict(), file)
    whole = file.read_bytes()
    load_weights(network, file)
    for end in range(len(whole)):
        file.write_bytes(whole[:end])
        with pytest.raises(ValueError, match="cannot be read as safetensors"):
            load_weights(network, file)


# weights of another network

OWN = {"weight": torch.full((1, 2), 7.0), "bias": torch.tensor([9.0])}
UNFIT: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({"weight": OWN["weight"]}, "Linear: lacks bias[.] Give those"),
    "more": (OWN | {"scale": torch.ones(1)}, "Linear: has besides scale[.] Give"),
    "other names": ({"w": OWN["weight"]}, "Linear: lacks weight, bias; has besides w[.] Give"),
    "many": ({f"w{n}": torch.ones(1) for n in range(9)}, "has besides w0, w1, w2 and 6 more[.] Give"),
    "shape": (OWN | {"weight": torch.ones(1, 3)}, r"Linear: other shapes: weight \(1, 3\) for \(1, 2\)[.] Give"),
    "a shape without end": (OWN | {"weight": torch.ones(1).expand(10**6, 10**6)}, r"other shapes: weight \(1000000, "),
    "whole numbers": (OWN | {"bias": torch.ones(1, dtype=torch.int8)}, "other numbers: bias int8 for float32"),
    "eight bits": (OWN | {"bias": torch.ones(1, dtype=torch.float8_e4m3fn)}, "bias float8_e4m3fn for float32"),
    "sparse": (OWN | {"weight": torch.ones(1, 2).to_sparse()}, r"weight float32 \(sparse_coo\) for float32"),
    "NaN": (OWN | {"bias": torch.tensor([torch.nan])}, "holds numbers that are not finite, in bias: .*train anew"),
    "beyond single precision": (OWN | {"bias": torch.tensor([1e300], dtype=torch.float64)}, "not finite, in bias"),
    "no tensors": (
        {"epoch": 3, "seed": 4},
        "holds epoch, seed; one state_dict is needed, alone or under",
    ),
    "an empty one": ({}, "holds nothing; one state_dict"),
    "two": ({"model": OWN, "state_dict": OWN}, "holds state_dicts under model and state_dict; one"),
    "an unknown wrapping": ({"ema": OWN}, "holds ema; one state_dict is needed"),
}


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("name", UNFIT)
def test_what_does_not_fit_is_named(name: str, tmp_path: Path) -> None:
    states, message = UNFIT[name]
    torch.save(states, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=f"w.pt: .*{message}") as told:
        load_weights(nn.Linear(2, 1), tmp_path / "w.pt")
    assert "\n" not in str(told.value)


FITS: dict[str, dict[str, Any]] = {
    "alone": OWN,
    "MONAI's zoo": {"model": OWN, "optimizer": {"lr": 1.0}, "epoch": 3},
    "our checkpoint": {"network": OWN, "trainer": {"epoch": 3}},
    "Lightning": {"state_dict": OWN, "epoch": 3, "hyper_parameters": {}},
    "DataParallel": {f"module.{key}": weight for key, weight in OWN.items()},
    "compiled and in parallel": {f"module._orig_mod.{key}": weight for key, weight in OWN.items()},
    "half precision": {key: weight.half() for key, weight in OWN.items()},
    "double precision": {key: weight.double() for key, weight in OWN.items()},
}


@pytest.mark.parametrize("name", FITS)
def test_the_ways_in_which_weights_are_saved(name: str, tmp_path: Path) -> None:
    torch.save(FITS[name], tmp_path / "w.pt")
    network = nn.Linear(2, 1)
    start_from(network, tmp_path / "w.pt")
    assert {key: weight.tolist() for key, weight in network.state_dict().items()} == {
        key: weight.tolist() for key, weight in OWN.items()
    }


def test_a_prefix_of_some_names_alone_belongs_to_them(tmp_path: Path) -> None:
    torch.save({"module.weight": OWN["weight"], "bias": OWN["bias"]}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="lacks weight; has besides module.weight"):
        load_weights(nn.Linear(2, 1), tmp_path / "w.pt")


def test_an_fcn_does_not_start_from_what_is_not_finite(tmp_path: Path) -> None:
    coarse, fine = (SkipFCN(2, 1, 3, skips=n, features=(4, 8, 8, 8)) for n in (0, 2))
    with torch.no_grad():
        next(coarse.parameters()).fill_(np.inf)
    torch.save(coarse.state_dict(), tmp_path / "w.pt")
    with pytest.raises(ValueError, match="not finite"):
        start_from(fine, tmp_path / "w.pt")


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="train the bundle first"):
        load_weights(nn.Linear(2, 1), tmp_path / "absent.pt")
