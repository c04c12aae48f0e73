"""What a comparison is made of: one training a file, `result.json`, and all of them together."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite, nan
from pathlib import Path
from typing import Any, Literal, NamedTuple

from monai_unetfamily.evaluation import Score
from monai_unetfamily.io import atomic_file, make_directory

RESULT = "result.json"
Kind = Literal["family", "depth", "reference", "variant"]


class Point(NamedTuple):
    """Where a training was after an epoch; `dice` is nan where it was not validated."""

    minutes: float
    loss: float
    dice: float


class Cost(NamedTuple):
    """What a network costs.

    Attributes:
        parameters: numbers that training may change.
        macs: multiply-accumulate operations of one window.
        seconds: for a volume, the median of those timed: windows, blending, and back on the volume's own grid.
        peak_bytes: the most memory that the prediction of a volume adds to its process.
    """

    parameters: int
    macs: int
    seconds: float = nan
    peak_bytes: float = nan


@dataclass(frozen=True)
class Run:
    """One training of one network, as its `result.json` keeps it.

    Attributes:
        network: its name in the comparison.
        repeat: which of its trainings: "seed 0", "fold 2".
        failure: why there is nothing else.
        minutes, epochs, samples_per_second: of training.
        curve: one point an epoch.
        scores: of the network ("") and of variants of it that need no training of their own -> a row a case and class.
        sizes: the same -> parameters, and operations of a window.
    """

    network: str
    repeat: str
    failure: str = ""
    minutes: float = nan
    epochs: int = 0
    samples_per_second: float = nan
    curve: tuple[Point, ...] = ()
    scores: Mapping[str, tuple[Score, ...]] = field(default_factory=dict)
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class NetworkResult:
    """A network, or a variant of one, with all that its trainings gave: a row of the comparison.

    Attributes:
        name: "unet", "unetplusplus L2", "unet3plus_cgm ungated".
        kind: a member of the family, a U-Net of another depth, a network of MONAI's, or a variant that shares its
            weights with the member before the space.
        scores: of all its trainings.
        cost: of the first of them.
        repeats: names of its trainings.
        curves: of each of them.
        minutes, epochs: fewest and most of them.
        samples_per_second: while it trained, the mean of them.
    """

    name: str
    kind: Kind
    scores: tuple[Score, ...]
    cost: Cost
    repeats: tuple[str, ...] = ()
    curves: tuple[tuple[Point, ...], ...] = ()
    minutes: tuple[float, float] = (0.0, 0.0)
    epochs: tuple[int, int] = (0, 0)
    samples_per_second: float = nan

    @property
    def own(self) -> str:
        """Of a variant the network whose weights it has; else nothing."""
        return self.name.partition(" ")[0] if self.kind == "variant" else ""


@dataclass(frozen=True)
class Comparison:
    """Everything that a report says comes from here.

    Attributes:
        dataset: its name.
        minutes: of training, each.
        repeats: "seeds" or "folds".
        entrants: in the order of the family.
        failures: name, repeat and reason of the trainings that gave nothing.
        differences: name -> how a network departs from what is equal for all.
        facts: what was equal, and on which machine: name -> words.
    """

    dataset: str
    minutes: float
    repeats: Literal["seeds", "folds"]
    network_results: tuple[NetworkResult, ...]
    failures: tuple[tuple[str, str, str], ...] = ()
    differences: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def trained(self) -> list[NetworkResult]:
        """Those that were trained for themselves."""
        return [network_result for network_result in self.network_results if network_result.kind != "variant"]

    @property
    def baseline(self) -> str:
        """The one that the others are tested against: U-Net, where it is among them."""
        names = [network_result.name for network_result in self.trained]
        return "unet" if "unet" in names else names[0]

    @property
    def classes(self) -> list[str]:
        """Names, in order of appearance."""
        return list(
            dict.fromkeys(score.label for network_result in self.network_results for score in network_result.scores)
        )

    def named(self, name: str) -> NetworkResult | None:
        """The entrant of a name; None where it is not among them."""
        return next((network_result for network_result in self.network_results if network_result.name == name), None)


def write_run(run: Run, folder: Path) -> None:
    """Write `result.json`, whole or not at all.

    Raises:
        OSError: the folder cannot be written.
    """
    make_directory(folder)
    write_json(asdict(run), folder / RESULT)


def read_run(folder: Path) -> Run | None:
    """What `write_run` wrote; None where there is nothing.

    Raises:
        ValueError: a file that is something else.

    >>> read_run(Path("absent")) is None
    True
    """
    file = folder / RESULT
    if not file.is_file():
        return None
    try:
        found = json.loads(file.read_text("utf-8"))
        curve = tuple(Point(*map(float, point)) for point in found.pop("curve"))
        scores = {name: tuple(map(_score, rows)) for name, rows in found.pop("scores").items()}
        sizes = {name: tuple(pair) for name, pair in found.pop("sizes").items()}
        found |= {key: float(found[key]) for key in ("minutes", "samples_per_second")}
        return Run(**found, curve=curve, scores=scores, sizes=sizes)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{file}: is no result of a comparison; remove its folder, and compare again.") from error


def write_json(content: Any, file: Path) -> None:
    """Write JSON, whole or not at all; numbers that are none are the words "nan", "inf", "-inf".

    Raises:
        OSError: the file cannot be written.
    """
    with atomic_file(file) as stream:
        stream.write((json.dumps(_plain(content), indent=1, allow_nan=False) + "\n").encode())


def _plain(item: Any) -> Any:
    if isinstance(item, Mapping):
        return {key: _plain(value) for key, value in item.items()}
    if isinstance(item, Sequence) and not isinstance(item, str):
        return [_plain(value) for value in item]
    return str(item) if isinstance(item, float) and not isfinite(item) else item


def _score(row: Sequence[Any]) -> Score:
    case, label, *numbers, unit = row
    return Score._make([case, label, *map(float, numbers), unit])
