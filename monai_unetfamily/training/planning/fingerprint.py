"""The fingerprint of a data set: what its cases are like, as facts that a plan can be made of.

After nnU-Net's (Isensee et al., Nature Methods 18, 2021, online methods), with the volume of each class and its
absences besides. It keeps no voxel: as JSON a case takes about a kilobyte.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from monai_unetfamily.evaluation.tables import align
from monai_unetfamily.training.planning.facts import CaseFacts, Intensity
from monai_unetfamily.training.planning.pairs import paired_sides


@dataclass(frozen=True)
class Fingerprint:
    """What a data set holds. Axes and units are those of `CaseFacts`."""

    name: str
    modality: str  # "CT", "MR", ... as the data set says; "" where it does not
    channels: tuple[str, ...]
    labels: dict[int, str]  # id -> name; 0 is the background, and is missing where classes overlap
    ignore: int | None  # id of voxels that nobody labelled
    layout: str  # "MSD", "nnU-Net" or "paired folders"
    overlapping: bool
    cases: tuple[CaseFacts, ...]
    pooled: tuple[Intensity, ...]  # of each channel, over the foreground of all cases; empty without any

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the foreground classes, by id."""
        return tuple(name for label, name in sorted(self.labels.items()) if label)

    @property
    def spatial_dims(self) -> int:
        """3 of volumes, 2 of pictures."""
        return len(self.cases[0].size)

    def spacing(self, percentile: float = 50) -> tuple[float, ...]:
        """Percentile over the cases of the spacing along each axis, mm."""
        return _percentile([case.spacing for case in self.cases], percentile)

    def size(self, percentile: float = 50, spacing: tuple[float, ...] | None = None) -> tuple[int, ...]:
        """Percentile over the cases of the voxels along each axis, once they are resampled to `spacing` (mm)."""
        sizes = [_resampled(case, spacing or case.spacing) for case in self.cases]
        return tuple(round(size) for size in _percentile(sizes, percentile))

    def intensity(self, channel: int = 0) -> Intensity:
        """Values of a channel over the foreground of all cases.

        Raises:
            ValueError: no case has any foreground.
            IndexError: there is no such channel.
        """
        if not self.pooled:
            raise ValueError(f"{self.name}: no case has foreground; labelled voxels are needed, check the labels")
        return self.pooled[channel]

    @property
    def absent_from_case(self) -> dict[str, float]:
        """Class -> share of the cases without it, 0 to 1."""
        missing = {name: sum(not case.volumes_ml[name] for case in self.cases) for name in self.classes}
        return {name: count / len(self.cases) for name, count in missing.items()}

    @property
    def paired_sides(self) -> list[tuple[str, str]]:
        """Pairs (left, right) of classes whose names differ in the side alone."""
        return paired_sides(self.classes)

    def to_json(self) -> str:
        """As text that `from_json` reads."""
        return json.dumps(asdict(self), indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "Fingerprint":
        """Read what `to_json` wrote.

        Raises:
            ValueError: no JSON, or not of a fingerprint; says what is missing or unknown.

        >>> Fingerprint.from_json("{}")
        Traceback (most recent call last):
        ValueError: got no fingerprint (missing 'name'); what Fingerprint.to_json writes is allowed, take it anew
        """
        try:
            return _fingerprint(json.loads(text))
        except KeyError as error:
            raise ValueError(_refusal(f"missing {error}")) from error
        except (TypeError, AttributeError, ValueError) as error:
            raise ValueError(_refusal(str(error))) from error


def format_fingerprint(fingerprint: Fingerprint) -> str:
    """A fingerprint as tables that people read, in plain text that is Markdown too."""
    return "\n\n".join([_summary(fingerprint), _grids(fingerprint), _classes(fingerprint), _intensities(fingerprint)])


def _summary(fingerprint: Fingerprint) -> str:
    cases = len(fingerprint.cases)
    channels = ", ".join(fingerprint.channels)
    kind = f"{'picture' if fingerprint.spatial_dims == 2 else 'volume'}{'s' * (cases != 1)}"
    modality = f" of {fingerprint.modality}" if fingerprint.modality else ""
    return f"{fingerprint.name}: {cases} {kind}{modality} ({fingerprint.layout}), channels: {channels}"


def _grids(fingerprint: Fingerprint) -> str:
    unit = "mm" if fingerprint.spatial_dims == 3 else "pixels"
    rows = [
        [f"spacing, {unit}", *(_by("{:.4g}", fingerprint.spacing(p)) for p in (0, 10, 50, 90, 100))],
        ["size, voxels", *(_by("{}", fingerprint.size(p)) for p in (0, 10, 50, 90, 100))],
    ]
    return align([["over the cases", "least", "10 %", "median", "90 %", "largest"], *rows])


def _classes(fingerprint: Fingerprint) -> str:
    absent = fingerprint.absent_from_case
    unit = "ml" if fingerprint.spatial_dims == 3 else "1000 pixels"
    rows = []
    for name in fingerprint.classes:
        volumes = [case.volumes_ml[name] for case in fingerprint.cases if case.volumes_ml[name]]
        spread = np.percentile(volumes, (0, 50, 100)) if volumes else ()
        rows.append([name, *(f"{value:.4g}" for value in spread), *("-" for _ in range(3 - len(spread)))])
        rows[-1].append(f"{absent[name]:.1%}")
    return align([["class", f"least {unit}", "median", "largest", "absent from cases"], *rows])


def _intensities(fingerprint: Fingerprint) -> str:
    header = ["channel", "0.5 %", "1 %", "median", "99 %", "99.5 %", "mean", "sd"]
    rows = [
        [name, *(f"{value:.4g}" for value in asdict(intensity).values())]
        for name, intensity in zip(fingerprint.channels, fingerprint.pooled, strict=False)
    ]
    return align([header, *rows]) if rows else "intensities of the foreground are not known"


def _by(form: str, values: tuple[float, ...]) -> str:
    return " x ".join(form.format(value) for value in values)


def _percentile(rows: list[tuple[float, ...]] | list[tuple[int, ...]], percentile: float) -> tuple[float, ...]:
    return tuple(float(value) for value in np.percentile(np.asarray(rows, np.float64), percentile, axis=0))


def _resampled(case: CaseFacts, spacing: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(n * own / new for n, own, new in zip(case.size, case.spacing, spacing, strict=True))


def _refusal(reason: str) -> str:
    return f"got no fingerprint ({reason}); what Fingerprint.to_json writes is allowed, take it anew"


def _fingerprint(content: Mapping[str, Any]) -> Fingerprint:
    return Fingerprint(
        name=content["name"],
        modality=content["modality"],
        channels=tuple(content["channels"]),
        labels={int(label): name for label, name in content["labels"].items()},
        ignore=content["ignore"],
        layout=content["layout"],
        overlapping=content["overlapping"],
        cases=tuple(_case(case) for case in content["cases"]),
        pooled=tuple(Intensity(**each) for each in content["pooled"]),
    )


def _case(content: Mapping[str, Any]) -> CaseFacts:
    turned = {key: tuple(content[key]) for key in ("size", "spacing", "extent_mm")}
    ranges = tuple((low, high) for low, high in content["ranges"])
    intensity = tuple(Intensity(**each) for each in content["intensity"])
    return CaseFacts(**{**content, **turned, "ranges": ranges, "intensity": intensity})
