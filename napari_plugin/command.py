"""The line of the command that does what the widget did."""

import csv
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_unetfamily.io import stem

if TYPE_CHECKING:
    from monai_unetfamily.prediction import Settings

_LIST = "channels.csv"


def predict_command(
    bundle: str | Path,
    paths: Sequence[str],
    output: str,
    settings: "Settings",
    device: str,
    *,
    channel_dim: int | None = None,
    series: str = "",
    trust: bool = False,
) -> str:
    """The `unetfamily predict` line that segments one image as the widget did; what is default is left out.

    Several channels are files `<case>_0000`, `<case>_0001`, ... of one folder, or are listed in a CSV, whose writing
    is a line before.

    Args:
        bundle: the folder, or the name of a shipped one.
        paths: files of the image, one a channel, or the folder of a DICOM series.
        output: the folder for everything that is written.
        settings: of the run.
        device: as `--device` takes it.
        channel_dim: the axis of a 4-D file that counts channels.
        series: of a folder of DICOM, as `--series` takes it; empty: its default.
        trust: whether the bundle may run code of its own.

    Returns:
        Words quoted for a POSIX shell.

    Raises:
        ValueError: no path.

    >>> from monai_unetfamily.prediction import Settings
    >>> predict_command("phantom_ct", ["a scan.nii.gz"], "labels", Settings(overlap=0.25, roi=("liver",)), "cpu")
    "unetfamily predict phantom_ct 'a scan.nii.gz' -o labels --device cpu --overlap 0.25 --roi liver"
    >>> print(predict_command("brain", ["/mr/t1.nii", "/mr/t2.nii"], "labels", Settings(), "auto"))
    printf '%s\\n' image_0,image_1 /mr/t1.nii,/mr/t2.nii > channels.csv
    unetfamily predict brain channels.csv -o labels
    """
    if not paths:
        raise ValueError("got no file of the image; the command reads files alone, save the image first")
    listed = len(paths) > 1 and not _are_joined(paths)
    inputs = [_LIST] if listed else paths
    words = ["unetfamily", "predict", *map(_positional, (str(bundle), *inputs)), "-o", output]
    words += [] if device == "auto" else ["--device", device]
    words += [] if channel_dim is None else ["--channel-dim", str(channel_dim)]
    words += ["--series", series] if series else []
    words += ["--trust"] if trust else []
    line = shlex.join([*words, *_options(settings)])
    return f"{_write_list(paths)}\n{line}" if listed else line


def _are_joined(paths: Sequence[str]) -> bool:
    """Whether the command takes the files for channels of one image by their names."""
    first = Path(paths[0])
    case = re.sub(r"_\d{4}$", "", stem(first))
    expected = [f"{case}_{number:04}" for number in range(len(paths))]
    return [stem(Path(path)) for path in paths] == expected and {Path(path).parent for path in paths} == {first.parent}


def _write_list(paths: Sequence[str]) -> str:
    text = StringIO()
    columns = [f"image_{number}" for number in range(len(paths))]
    csv.writer(text, lineterminator="\n").writerows([columns, [str(Path(path).absolute()) for path in paths]])
    return shlex.join(["printf", r"%s\n", *text.getvalue().splitlines()]) + f" > {_LIST}"


def _positional(word: str) -> str:
    """A path that cannot be taken for an option."""
    return f"./{word}" if word.startswith("-") else word


def _options(settings: "Settings") -> Iterator[str]:
    defaults = type(settings)()
    for name in (field.name for field in fields(settings)):
        value = getattr(settings, name)
        if value != getattr(defaults, name):
            yield from _option(name, value)


def _option(name: str, value: Any) -> Iterator[str]:
    option = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        yield option if value else f"--no-{name}"
        return
    yield option
    if name == "box":
        yield ",".join(f"{first}:{stop}" for first, stop in value)
    elif isinstance(value, Mapping):
        yield from (f"{key}={number}" for key, number in value.items())
    elif isinstance(value, tuple):
        yield from value
    else:
        yield str(value)
