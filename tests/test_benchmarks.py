"""The benchmarks run and their arithmetic is right; no time is judged here."""

import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import asdict
from functools import partial
from pathlib import Path
from runpy import run_module
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import cohort, measure, napari_window, plot, publish, table, windows
from benchmarks.__main__ import BENCHMARKS, run
from benchmarks.gpu import command, device, networks, prediction, training
from benchmarks.gpu.networks import Formed, Part
from benchmarks.measure import PACKAGES, Result, Spread, Step, compare, measured_together
from benchmarks.members import member
from benchmarks.steps import network_step, rounding
from monai_unetfamily.nets.layers.convolution import ConvLayer
from tests.support.family import SIZES, small
from tests.support.paper_form import PlainLayer, paper_form
from tests.support.tiers import sampled


def test_a_spread_is_the_median_and_the_quartiles() -> None:
    assert Spread.of([5.0, 1.0, 3.0, 2.0, 4.0]) == Spread(3.0, 2.0, 4.0)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0)


def test_ratios_are_taken_round_by_round() -> None:
    own, base = Result((2.0, 30.0, 4.0), 600), Result((1.0, 10.0, 1.0), 200)
    assert own.time_over(base) == Spread(3.0, 2.5, 3.5)
    assert own.memory_over(base) == 3.0
    assert base.time_over(own) == Spread.of([1 / 2, 1 / 3, 1 / 4])


def test_a_candidate_that_failed_has_no_ratio() -> None:
    failed = Result(failure="RuntimeError: no")
    assert failed.time_over(Result((1.0,), 1)) is None
    assert Result((1.0,), 1).time_over(failed) is None
    assert failed.memory_over(Result((1.0,), 1)) is None


MEGABYTES = 64


def allocating(megabytes: int) -> Step:
    return partial(torch.ones, megabytes << 18)  # float32


def out_of_memory() -> Step:
    raise MemoryError("too much. Buy more.")


def test_memory_is_what_the_step_adds_and_a_failure_costs_its_row() -> None:
    candidates = {"small": partial(allocating, MEGABYTES), "large": partial(allocating, 3 * MEGABYTES)}
    results = compare({**candidates, "failing": out_of_memory}, rounds=2)
    assert results["large"].memory_over(results["small"]) == pytest.approx(3, rel=0.1)
    assert [len(result.seconds) for result in results.values()] == [2, 2, 0]
    assert results["failing"].failure == "MemoryError: too much"


def test_one_process_measures_all_candidates_and_a_failure_costs_its_row() -> None:
    """As on a GPU."""
    candidates = {"small": partial(allocating, 1), "failing": out_of_memory, "large": partial(allocating, 2)}
    results = measured_together(candidates, 2, "cpu", torch.get_num_threads())
    assert [len(result.seconds) for result in results.values()] == [2, 0, 2]
    assert [result.failure for result in results.values()] == [None, "MemoryError: too much", None]


@pytest.mark.exhaustive
@pytest.mark.slow
def test_what_measuring_processes_are_forked_from_never_asks_for_cuda() -> None:
    """CUDA cannot be used in a process forked from one that has asked for it, were it whether there is a device."""
    asks = ("torch.cuda.is_available", "torch.cuda.device_count", "torch.cuda.init", "torch.accelerator.is_available")
    code = "import torch, importlib, sys\nasked = []\n"
    code += "".join(f"{name} = lambda *_: asked.append({name!r})\n" for name in asks)
    code += f"[importlib.import_module(name) for name in {PACKAGES}]\nsys.exit(' '.join(asked) or 0)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch, bundle: Path) -> None:
    """No processes but windows, no repetition, a tiny bundle in the window: toy sizes are about running at all."""

    def call(function: Callable[..., Any], *args: Any) -> Any:
        threads = torch.get_num_threads()
        try:
            return function(*args)
        finally:
            torch.set_num_threads(threads)

    for module in (measure, prediction, training):
        monkeypatch.setattr(module, "in_fresh_process", call)
    monkeypatch.setattr(measure, "SAMPLE", 0.0)
    monkeypatch.setattr(cohort, "subprocess", SimpleNamespace(run=run_here))
    monkeypatch.setattr(napari_window, "BUNDLE", str(bundle))


def run_here(command: Sequence[str], cwd: Path, **_: object) -> None:
    """What `python -m MODULE ARGUMENTS` does."""
    _, _, module, *arguments = command
    handlers = list(logging.root.handlers)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        patch.setattr(sys, "argv", [module, *arguments])
        with suppress(SystemExit):
            run_module(module, run_name="__main__")
    logging.root.handlers[:] = handlers  # MONAI's runner sets its own


@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("name", sampled(BENCHMARKS, "hybrid_loss", "nested"))
def test_a_benchmark_runs_and_nothing_fails(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "benchmarks.json"
    file.write_text(json.dumps({"before": {}}))
    run(name, "toy", file)
    record = json.loads(file.read_text())[name]
    assert set(json.loads(file.read_text())) == {"before", name}
    assert {"title", "scale", "machine", "minutes", "rows"} == set(record)
    rows = table.from_json(record["rows"])
    assert table.markdown(rows) in capsys.readouterr().out
    figures = [cell for row in rows for cell in row.values() if isinstance(cell, Spread | float)]
    assert len(figures) >= len(rows)
    assert "Error" not in table.markdown(rows)


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("name", command.BENCHMARKS)
def test_a_gpu_benchmark_runs_on_a_cpu_and_nothing_fails(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "gpu.json"
    assert command.run(name, "toy", "cpu", file)
    record = json.loads(file.read_text())[name]
    rows = table.from_json(record["rows"])
    assert table.markdown(rows) in capsys.readouterr().out
    assert publish.shown(record)
    figures = [cell for row in rows for cell in row.values() if isinstance(cell, Spread | float)]
    assert len(figures) >= len(rows)


def test_a_run_on_a_gpu_keeps_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, seen = tmp_path / "gpu.json", []

    def part(rows: int) -> Iterator[table.Row]:
        for number in range(rows):
            yield {"number": number, "peak MiB": 10 * number}
            seen.append(json.loads(file.read_text())["some"]["rows"])
        if rows == 2:
            raise RuntimeError("the device was lost")

    def parts(scale: str, place: str) -> Iterator[Part]:
        yield partial(part, 1)
        yield partial(part, 2)

    monkeypatch.setitem(command.BENCHMARKS, "some", command.Benchmark("Some", parts))
    assert not command.run("some", "toy", "cpu", file)
    assert [len(rows) for rows in seen] == [1, 2, 3]
    assert json.loads(file.read_text())["some"]["rows"][-1] == {"failed": "RuntimeError: the device was lost"}
    assert command.most_memory(file, ["some"]) == 10


@pytest.mark.parametrize(
    ("cuda", "listed", "said"),
    [
        (None, [], "no CUDA device: torch finds none and nvidia-smi lists none"),
        (None, ["GPU 0: A"], r"lists GPU 0: A, but torch .* is built without CUDA: replace it with .*'torch===2\.\d+"),
        ("13.0", ["GPU 0: A"], r"cannot use it \(RuntimeError: the driver is too old\): update the NVIDIA driver"),
    ],
)
def test_a_device_that_torch_cannot_use_is_named_with_the_fix(
    cuda: str | None, listed: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise RuntimeError("the driver is too old. Buy one.")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", refuse)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(device, "listed_devices", lambda: listed)
    problem = device.problem()
    assert problem is not None
    assert re.search(said, problem)
    assert "\n" not in problem


def test_without_a_device_the_command_ends_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "problem", lambda: "no CUDA device.")
    monkeypatch.setattr(sys, "argv", ["bench-gpu"])
    assert command.main() == 1
    assert capsys.readouterr() == ("", "make bench-gpu: no CUDA device.\n")


def test_tf32_is_on_for_its_own_steps_alone() -> None:
    def allowed() -> tuple[bool, bool]:
        return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32

    before, on_gpu = allowed(), SimpleNamespace(device=torch.device("cuda"))
    with rounding(on_gpu, "tf32"):
        assert allowed() == (True, True)
        with rounding(on_gpu, "float32"):
            assert allowed() == (False, False)
        assert allowed() == (True, True)
    assert allowed() == before


@pytest.mark.slow
def test_the_coarse_grid_form_is_switched_on_and_off() -> None:
    case = networks.Case((48, 48), 1, 8, 4)
    build = partial(member, "unet3plus", 2, case.widths)
    assert networks.coarse_layers(build, case) > 0
    assert networks.coarse_layers(partial(member, "unet", 2, case.widths), case) == 0
    taken: dict[str, int] = {}
    outputs = []
    for form, rule in networks.FORMS.items():
        taken[form] = 0

        def counted(x: Any, kernel: Any, form: str = form, rule: networks.Rule = rule) -> bool:
            chosen = rule(x, kernel)
            taken[form] += chosen
            return chosen

        outputs.append(Formed(network_step(build, case.size, "eval"), counted)())
    assert taken == {"on": networks.coarse_layers(build, case), "off": 0}
    torch.testing.assert_close(*outputs, rtol=1e-3, atol=1e-4)


def test_a_table_goes_through_json_unchanged() -> None:
    rows = [{"a": "x", "b": Spread(1.0, 0.5, 2.0), "c": 1234}, {"a": "y", "b": None, "c": 0.25}]
    assert table.from_json(json.loads(json.dumps(table.to_json(rows)))) == rows
    assert table.markdown(rows).splitlines() == [
        "| a | b                | c     |",
        "|---|-----------------:|------:|",
        "| x | 1.00 (0.50-2.00) | 1,234 |",
        "| y |                - |  0.25 |",
    ]


@pytest.mark.parametrize("page", publish.PAGES, ids=lambda page: page.name)
def test_a_page_shows_the_run_that_is_committed_with_it(page: Path) -> None:
    text = page.read_text("utf-8")
    assert publish.filled(text, json.loads(publish.RESULTS.read_text("utf-8"))) == text
    assert set(publish.TABLE.findall(text)) <= {*BENCHMARKS, *command.BENCHMARKS}


def test_a_table_goes_into_its_place_alone() -> None:
    record = {"scale": "full", "machine": {"threads": 2}, "rows": [{"network": "a", "speed": 2.0}]}
    before = "<!-- benchmark x -->\nold\n<!-- end -->\ntext\n<!-- benchmark y -->\nold\n<!-- end -->\n"
    after = publish.filled(before, {"x": record})
    table_of_x = "| network | speed |\n|---------|------:|\n| a       |  2.00 |\n\n*threads 2*\n"
    assert after == before.replace("x -->\nold\n", f"x -->\n{table_of_x}")


@pytest.mark.slow
def test_the_picture_shows_every_network(tmp_path: Path) -> None:
    spread = asdict(Spread(2.0, 1.9, 2.1))
    price = {"speed": spread, "memory": 0.5, "price before": spread, "price now": spread}
    unet3plus = [{"network": "3-D", "device": "cpu float32", **price}]
    times = {"eval, time": spread, "training step, time": "MemoryError: too much"}
    members = [
        {"image, widths": size, "network": name, **times} for size in ("8x8", "4x4x4") for name in ("a", "MONAI b")
    ]
    plot.draw({"unet3plus": {"rows": unet3plus}, "members": {"rows": members}}, tmp_path / "benchmark.svg")
    drawn = (tmp_path / "benchmark.svg").read_text("utf-8")
    for text in ("3-D", "2.00x the speed, 0.50x the memory", "a", "MONAI b", "Image 8x8", "Image 4x4x4"):
        assert f"<!-- {text} -->" in drawn


@pytest.mark.parametrize("name", windows.inferers())
def test_every_inferer_comes_to_the_same_labels(name: str) -> None:
    (case,) = windows.CASES["toy"]
    labels, expected = (windows.inferer_step(inferer, case)() for inferer in (name, windows.BASE))
    assert (labels != expected).float().mean() < (0.01 if "nnU-Net" in name else 1e-9)  # which sums in half precision


@pytest.mark.parametrize("dims", [2, 3])
def test_the_papers_form_is_the_same_function_of_the_same_parameters(dims: int) -> None:
    network = small("unet3plus", dims).double().eval()
    plain = paper_form(deepcopy(network))
    plain.load_state_dict(network.state_dict())
    image = torch.randn(1, 2, *SIZES[dims][1], dtype=torch.float64)  # odd
    torch.testing.assert_close(plain(image), network(image), rtol=1e-9, atol=1e-9)
    assert all(isinstance(module, PlainLayer) for module in plain.modules() if isinstance(module, ConvLayer))
