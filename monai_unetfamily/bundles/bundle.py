"""A MONAI bundle, opened for prediction or training, and copied."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from monai.bundle import ConfigParser
from torch import nn

from monai_unetfamily.bundles.agreement import check_background, check_postprocessing
from monai_unetfamily.bundles.checkpoint import WEIGHTS
from monai_unetfamily.bundles.weights import load_weights
from monai_unetfamily.volumes.cases import IGNORE
from monai_unetfamily.volumes.files import atomic_file, make_folder, require_free
from monai_unetfamily.volumes.masks import number_classes

METADATA = "metadata.json"
INSTALLED = Path(__file__).parents[1] / "configs"
SHIPPED = INSTALLED if INSTALLED.is_dir() else Path(__file__).parents[2] / "configs"  # the latter in a checkout
_LEFT_BEHIND = ("models", "logs", "eval", "docs", "__pycache__")  # what belongs to the weights that a copy lacks

_CARD = """# {name}

A copy of the bundle `{source}`, for weights of its own: what they learned, and when, is in `logs/`. Say here what they
were trained and tested on. Research use, not diagnosis.
"""


@dataclass(frozen=True)
class Bundle:
    """The parts of a bundle that prediction needs, on a device.

    `preprocess` maps {"image": path} to {"image": (C, *spatial)}; `inferer(x, network)` maps (N, C, *spatial) to scores
    (N, classes, *spatial); `postprocess` maps {"image", "pred"} to labels (1, *spatial) on the image's own grid, or to
    masks (classes, *spatial) where classes may overlap. `names` is label id -> name, with 0 for a background alone.
    """

    root: Path
    names: dict[int, str]
    device: torch.device
    network: nn.Module
    preprocess: Callable[..., Any]
    inferer: Callable[..., Any]
    postprocess: Callable[..., Any]


def find_bundle(name: str | Path) -> Path:
    """The folder of a bundle: a path as it is, or else the name of one that ships with the package.

    Raises:
        FileNotFoundError: where there is neither; the message lists the shipped ones.

    >>> find_bundle("hippocampus_mr").name
    'hippocampus_mr'
    """
    for folder in (Path(name), SHIPPED / name):
        if (folder / "configs" / METADATA).is_file():
            return folder
    shipped = ", ".join(sorted(folder.parents[1].name for folder in SHIPPED.glob(f"*/configs/{METADATA}")))
    raise FileNotFoundError(
        f"{name}: no bundle there (no configs/{METADATA}); give a bundle's folder, or a shipped one's name: {shipped}."
    )


def config_file(root: Path, name: str) -> Path:
    """The config `name` of a bundle, in YAML or JSON.

    Raises:
        FileNotFoundError: where the bundle has none.
    """
    for suffix in (".yaml", ".yml", ".json"):
        if (file := root / "configs" / f"{name}{suffix}").is_file():
            return file
    raise FileNotFoundError(f"{root}: this bundle has no configs/{name}.yaml or .json; complete it.")


def read_metadata(root: Path) -> dict[str, Any]:
    """A bundle's metadata.

    Raises:
        ValueError: where the file is not JSON with an object in it.
    """
    file = root / "configs" / METADATA
    try:
        metadata = json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}: not JSON ({error}); mend the file.") from error
    if not isinstance(metadata, dict):
        raise ValueError(f"{file}: holds {type(metadata).__name__}; an object is needed; mend the file.")
    return metadata


def class_names(root: Path) -> dict[int, str]:
    """Label id -> name of a bundle's classes, from its metadata's `channel_def`, by the rule of `number_classes`.

    Raises:
        ValueError: where the metadata has none, or none that can be meant.

    >>> class_names(find_bundle("hippocampus_mr"))
    {0: 'background', 1: 'anterior', 2: 'posterior'}
    """
    metadata, file = read_metadata(root), root / "configs" / METADATA
    try:
        channels = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
        channels = {int(channel): str(name) for channel, name in channels.items()}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{file}: has no network_data_format.outputs.pred.channel_def (channel: name); add it."
        ) from error
    try:
        return number_classes(channels)
    except ValueError as error:
        raise ValueError(f"{file}: channel_def: {error}") from error


def label_names(root: Path) -> dict[int, str]:
    """Label -> name in the data sets that a bundle trains on: its classes, and "ignore" for voxels without a label.

    The latter is the `ignore_label` of its train config, where it has one.

    Raises:
        FileNotFoundError: no train config.
        ValueError: a config or metadata that cannot be used.

    >>> label_names(find_bundle("hippocampus_mr"))
    {0: 'background', 1: 'anterior', 2: 'posterior', 255: 'ignore'}
    """
    names, file = class_names(root), config_file(root, "train")
    ignored = _parse(root, file, torch.device("cpu")).get("ignore_label")
    if ignored is None:
        return names
    if not isinstance(ignored, int) or ignored in names:
        raise ValueError(f"{file}: ignore_label is {ignored!r}; null, or a number that is no class, is allowed.")
    return names | {ignored: IGNORE}


def reader_name(root: Path) -> str:
    """The class of the one reader that a bundle's inference config names for its images; empty where it names none.

    Raises:
        FileNotFoundError: no inference config.
        ValueError: a config that cannot be used.

    >>> reader_name(find_bundle("phantom_2d"))
    'PictureReader'
    """
    file, part = config_file(root, "inference"), "preprocessing#transforms#0#reader"
    parser = _parse(root, file, torch.device("cpu"))
    reader = _resolve(parser, part, file) if part in parser else ""
    return reader.split(".")[-1] if isinstance(reader, str) else ""


def open_bundle(root: Path, device: torch.device) -> Bundle:
    """Open a bundle for prediction; of its config only the four parts above are resolved; its `imports` do not run.

    Raises:
        FileNotFoundError: a config or the weights are missing.
        ValueError: the config or the weights cannot be used.
    """
    file = config_file(root, "inference")
    parser = _parse(root, file, device)
    missing = [part for part in ("network_def", "preprocessing", "inferer", "postprocessing") if part not in parser]
    if missing:
        raise ValueError(f"{file}: has no {', '.join(missing)}; prediction needs them: complete the bundle.")
    _leave_out_savers(parser)
    names, postprocess = class_names(root), _resolve(parser, "postprocessing", file)
    check_postprocessing(names, postprocess, file)
    network: nn.Module = _resolve(parser, "network_def", file)
    load_weights(network, root / "models" / WEIGHTS)
    inferer = _resolve(parser, "inferer", file)
    check_background(names, network, inferer)
    return Bundle(
        root=root,
        names=names,
        device=device,
        network=network.to(device).eval(),
        preprocess=_resolve(parser, "preprocessing", file),
        inferer=inferer,
        postprocess=postprocess,
    )


def training_part(root: Path, part: str) -> Any:
    """One part of a bundle's train config, such as "loss", as an object.

    Raises:
        FileNotFoundError: no train config.
        ValueError: a config that cannot be used.

    >>> type(training_part(find_bundle("hippocampus_mr"), "loss")).__name__
    'GuidedLoss'
    """
    file = config_file(root, "train")
    return _resolve(_parse(root, file, torch.device("cpu")), part, file)


def find_weights(name: Path) -> Path:
    """The file of weights that a path means: itself, or that of a bundle, given by its folder or a shipped name.

    Raises:
        FileNotFoundError: where there is neither.

    >>> find_weights(Path("hippocampus_mr")).name
    'model.pt'
    """
    for file in (name, *(folder / "models" / WEIGHTS for folder in (name, SHIPPED / name))):
        if file.is_file():
            return file
    raise FileNotFoundError(f"{name}: no file of weights, and no bundle that has some; give one of the two.")


def copy_bundle(source: Path, target: Path) -> None:
    """Copy a bundle without its weights and logs, and with a card of its own: no figure of the source's holds for it.

    Raises:
        FileExistsError: where the target is there already and not empty.
    """
    require_free(target)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(*_LEFT_BEHIND), dirs_exist_ok=True)
    make_folder(target / "docs")
    with atomic_file(target / "docs" / "README.md") as stream:
        stream.write(_CARD.format(name=target.name, source=source.name).encode())


def _parse(root: Path, file: Path, device: torch.device) -> ConfigParser:
    parser = ConfigParser()
    try:
        parser.read_config(str(file))
        parser.read_meta(str(root / "configs" / METADATA))
    except (yaml.YAMLError, json.JSONDecodeError) as error:
        raise ValueError(f"{file}: cannot be read ({' '.join(str(error).split())}); mend the file.") from error
    parser["bundle_root"] = str(root)
    parser["device"] = device
    return parser


def _leave_out_savers(parser: ConfigParser) -> None:
    """Files are written by this package, which keeps headers; a bundle's own savers are left out."""
    if not isinstance(parser["postprocessing"], dict):
        raise ValueError("postprocessing is no transform with a _target_; give a Compose of transforms.")
    steps = parser["postprocessing"].get("transforms", [])
    parser["postprocessing"]["transforms"] = [
        step for step in steps if not str(step.get("_target_", "")).split(".")[-1].startswith("SaveImage")
    ]


def _resolve(parser: ConfigParser, part: str, file: Path) -> Any:
    try:
        return parser.get_parsed_content(part)
    except (RuntimeError, ValueError, TypeError, KeyError, ModuleNotFoundError) as error:
        raise ValueError(f"{file}: {part} cannot be built: {reason_of(error)}") from error


def reason_of(error: BaseException) -> str:
    """The innermost reason of an error, in one line: MONAI wraps what went wrong in what it was doing.

    >>> try:
    ...     raise RuntimeError("Failed to instantiate") from ValueError("features is (); give one width")
    ... except RuntimeError as error:
    ...     reason_of(error)
    'features is (); give one width'
    """
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__
