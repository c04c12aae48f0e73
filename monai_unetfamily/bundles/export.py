"""Export a bundle's network for use without Python, and compare it with the network before it is renamed.

What is exported maps preprocessed windows, float32 (N, C, *spatial), to logits (N, classes, *spatial); any batch and
any size. Preprocessing, sliding and the way back to the volume's grid stay with the bundle: its metadata goes along
inside the file, under "metadata.json".
"""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from traceback import walk_tb
from typing import Any, NamedTuple

import torch
from monai.data import save_net_with_metadata
from torch import Tensor, nn

from monai_unetfamily.bundles.bundle import open_bundle
from monai_unetfamily.bundles.metadata import METADATA, image_format, image_shape, read_metadata
from monai_unetfamily.io import atomic_file

TOLERANCE = 1e-4  # of the largest logit
_NEEDED = ("onnx", "onnxscript", "onnxruntime")
# What torch's exporters raise, or a layer that they run; they document none.
_FAILURES = (RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError)
Run = Callable[[Tensor], Tensor]


class Form(NamedTuple):
    """How a network is written in a form and opened from it.

    `write(network, example, metadata, file)`, with an example of (N, C, *spatial); `read(file)` runs it.
    """

    suffix: str
    write: Callable[[nn.Module, Tensor, dict[str, Any], Path], None]
    read: Callable[[Path], Run]


def export_network(root: Path, form: str, file: Path, *, trust: bool = False) -> float:
    """Write a bundle's network, with its weights, in another form, and hold what was written against the network.

    Args:
        root: the bundle's folder.
        form: "onnx" (ONNX, opset of the exporter's choice), "torch-export" (a .pt2 archive) or "torchscript" (a trace
            with metadata, as MONAI's `ckpt_export --use_trace True` writes it).
        file: a new file.
        trust: whether the bundle may run code of its own.

    Returns:
        The largest difference from the network, as a share of its largest logit, over random windows of two sizes and
        batches.

    Raises:
        FileExistsError: the file is there already.
        ImportError: the packages of the extra `export` are missing, which ONNX needs.
        ValueError: an unknown form; a bundle that cannot be opened; a network that torch cannot export, with the
            layer and the reason; logits that differ by more than 1e-4 of the
            largest. Nothing is written then.

    >>> from tempfile import TemporaryDirectory
    >>> from monai_unetfamily.bundles import find_bundle
    >>> with TemporaryDirectory() as folder:
    ...     export_network(find_bundle("phantom_2d"), "torchscript", Path(folder) / "phantom_2d.ts") < 1e-4
    True
    """
    how = _known_form(form)
    if file.exists():
        raise FileExistsError(f"{file}: is there already; name a new file, or take this one away.")
    network = open_bundle(root, torch.device("cpu"), trust=trust).network
    windows, metadata = list(_windows(root)), read_metadata(root)
    with TemporaryDirectory(prefix="unetfamily_") as folder, torch.no_grad():
        written = Path(folder) / f"network{how.suffix}"
        try:
            with _silent_exporters():
                how.write(network, windows[0], metadata, written)
        except _FAILURES as error:
            raise ValueError(
                f"{root}: cannot be exported as {form}: {_failing_layer(error, network)}{_first_line(error)}; "
                "choose another form, or change that layer"
            ) from error
        difference = max(_difference(how.read(written), network, window) for window in windows)
        if difference > TOLERANCE:
            raise ValueError(
                f"{root}: as {form} its logits differ by {difference:.1e} of the largest; {TOLERANCE:g} is allowed; "
                "nothing was written: choose another form."
            )
        with atomic_file(file) as stream:
            stream.write(written.read_bytes())
    return difference


@contextmanager
def _silent_exporters() -> Iterator[None]:
    """Keep the warnings of torch's exporters, and the graph that they print where they fail, off the terminal."""
    disabled = logging.root.manager.disable
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(disabled)


def _failing_layer(error: Exception, network: nn.Module) -> str:
    """Name the innermost layer of the network that was running, if one was."""
    names = {id(module): name for name, module in network.named_modules() if name}
    running = [id(frame.f_locals.get("self")) for frame, _ in walk_tb(error.__traceback__)]
    layers = [names[module] for module in running if module in names]
    return f"layer {layers[-1]}: " if layers else ""


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _known_form(form: str) -> Form:
    if form not in FORMS:
        raise ValueError(f"got form {form!r}; {', '.join(FORMS)} are allowed, name one of them.")
    if form == "onnx" and (missing := [name for name in _NEEDED if find_spec(name) is None]):
        raise ImportError(
            f"ONNX needs {', '.join(missing)}, which this environment lacks: pip install 'monai-unetfamily[export]'."
        )
    return FORMS[form]


def _windows(root: Path) -> Iterator[Tensor]:
    """Random windows: two of the size that the metadata states, and one that is half as long again in its last axis."""
    channels, shape = image_format(root).network_channels, image_shape(root)
    longer = (*shape[:-1], shape[-1] + shape[-1] // 2)
    random = torch.Generator().manual_seed(0)
    for size in ((2, channels, *shape), (1, channels, *longer)):
        yield torch.randn(size, generator=random)


def _difference(run: Run, network: nn.Module, window: Tensor) -> float:
    expected = network(window)
    return float((run(window) - expected).abs().max() / expected.abs().max())


def _exported(network: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    free = dict.fromkeys([0, *range(2, example.ndim)], torch.export.Dim.AUTO)  # batch and spatial axes
    return torch.export.export(network, (example,), dynamic_shapes=(free,))


def _write_onnx(network: nn.Module, example: Tensor, metadata: dict[str, Any], file: Path) -> None:
    program = torch.onnx.export(_exported(network, example), dynamo=True, verbose=False)
    if program is None:
        raise RuntimeError("torch's ONNX exporter returned no program; choose another form")
    program.model.metadata_props[METADATA] = json.dumps(metadata)
    program.save(file)


def _read_onnx(file: Path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda window: torch.from_numpy(session.run(None, {name: window.numpy()})[0])


def _write_program(network: nn.Module, example: Tensor, metadata: dict[str, Any], file: Path) -> None:
    torch.export.save(_exported(network, example), file, extra_files={METADATA: json.dumps(metadata)})


def _read_program(file: Path) -> Run:
    return torch.export.load(file).module()


def _write_trace(network: nn.Module, example: Tensor, metadata: dict[str, Any], file: Path) -> None:
    save_net_with_metadata(torch.jit.trace(network, example), str(file), meta_values=metadata)


def _read_trace(file: Path) -> Run:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated in torch, and still what MONAI deploys
        return torch.jit.load(str(file), map_location="cpu")


FORMS = {
    "onnx": Form(".onnx", _write_onnx, _read_onnx),
    "torch-export": Form(".pt2", _write_program, _read_program),
    "torchscript": Form(".ts", _write_trace, _read_trace),
}
