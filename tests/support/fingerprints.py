"""Fingerprints written by hand: cases that are all alike, of a stated grid and stated classes."""

from collections.abc import Sequence
from typing import Any

from monai_unetfamily.planning.fingerprint import CaseFacts, Fingerprint, Intensity

FOREGROUND = Intensity(p00_5=-41, p01=-30, p50=100, p99=170, p99_5=176, mean=99, std=39)


def fingerprint(
    size: Sequence[int] = (64, 64, 64),
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    classes: Sequence[str] = ("spleen",),
    *,
    modality: str = "CT",
    channels: Sequence[str] = ("CT",),
    dtype: str = "int16",
    cases: int = 20,
    spacings: Sequence[Sequence[float]] = (),
    lacking: int = 0,
    **facts: Any,
) -> Fingerprint:
    """`spacings` in place of one spacing a case; the first class is absent from `lacking` cases."""
    grids = spacings or [spacing] * cases

    def case(number: int) -> CaseFacts:
        volumes = {name: 0.0 if number < lacking and name == classes[0] else 10.0 for name in classes}
        return CaseFacts(
            name=f"case_{number:03}",
            size=tuple(size),
            spacing=tuple(grids[number]),
            orientation="RAS" if len(size) == 3 else "",
            dtype=dtype,
            label_dtype="uint8",
            volumes_ml=volumes,
            extent_mm=tuple(n * mm / 2 for n, mm in zip(size, grids[number], strict=True)),
            ranges=((-1000.0, 1000.0),) * len(channels),
            intensity=(FOREGROUND,) * len(channels),
        )

    given: dict[str, Any] = {
        "name": "by hand",
        "modality": modality,
        "channels": tuple(channels),
        "labels": {0: "background"} | dict(enumerate(classes, start=1)),
        "ignore": None,
        "layout": "MSD",
        "overlapping": False,
        "cases": tuple(case(number) for number in range(len(grids))),
        "pooled": (FOREGROUND,) * len(channels),
    }
    return Fingerprint(**given | facts)
