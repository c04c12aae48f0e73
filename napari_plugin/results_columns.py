"""What the table of a result says of a class, column by column and in full."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from monai_unetfamily.inference.measures import Measure

_OUTSIDE = "it may continue outside; the volume is of the part inside"


@dataclass(frozen=True)
class Column:
    """One column: its title and what that means, and a row's text and sorting key."""

    title: str
    meaning: str
    text: Callable[[Measure], str]
    key: Callable[[Measure], Any]


def _natural(measure: Measure) -> str:
    """So that rib 2 comes before rib 10."""
    return re.sub(r"\d+", lambda number: number[0].zfill(9), measure.name.casefold())


def _volume(measure: Measure) -> str:
    ml = measure.volume_ml or 0.0
    if not ml:
        return "0"
    return f"{ml:.1f}" if ml >= 100 else f"{ml:.2f}" if ml >= 0.01 else "<0.01"


def _volume_in_box(measure: Measure) -> str:
    return _volume(measure) if measure.voxels else "-"


def _presence(measure: Measure) -> str:
    return "" if measure.presence is None else f"{100 * measure.presence:.0f}"


_SHOWN = Column("", "Which classes are drawn.", lambda row: "", lambda row: row.label)
_NAME = Column("Class", "Click a class to go there and to paint it.", lambda row: row.name, _natural)
_VOLUME = Column("ml", "Volume in millilitres.", _volume, lambda row: row.volume_ml)
_VOLUME_IN_BOX = Column(
    "ml", "Volume in millilitres, within the box; -: none in the box.", _volume_in_box, lambda row: row.volume_ml
)
_AREA = Column("px", "Area in pixels.", lambda row: str(row.voxels), lambda row: row.voxels)
_PRESENCE = Column(
    "%",
    "How sure the network is that the class is there.",
    _presence,
    lambda row: -1.0 if row.presence is None else row.presence,
)
_EDGE = Column(
    "Edge",
    f"Faces of the field of view, or of the box, that a class touches: {_OUTSIDE}.",
    lambda row: " ".join(face[0].upper() for face in row.border_faces.split()),
    lambda row: row.border_faces,
)


def columns_of(rows: Sequence[Measure], in_box: bool = False) -> list[Column]:
    """The columns that rows of measures need; `in_box`: only a box was segmented."""
    size = _AREA if rows and rows[0].unit == "px" else _VOLUME_IN_BOX if in_box else _VOLUME
    presence = [_PRESENCE] if any(row.presence is not None for row in rows) else []
    return [_SHOWN, _NAME, size, *presence, _EDGE]


def describe(measure: Measure, in_box: bool = False) -> str:
    """All that is known of a class, a line each; `in_box`: only a box was segmented.

    >>> place = *[None] * 3, "mm", *[None] * 6
    >>> row = Measure("ct", 1, "liver", 1.5, 12, 101.26, 20.0, *place, True, "superior left", 0.98)
    >>> print(describe(row))
    liver (label 1)
    1.50 ml in 12 voxels
    intensity 101.3 ± 20.0
    98 % sure that it is there
    touches the field of view's superior and left face: it may continue outside; the volume is of the part inside
    """
    ml, unit = ("", "pixels") if measure.volume_ml is None else (f"{_volume(measure)} ml in ", "voxels")
    size = f"{ml}{measure.voxels} {unit}"
    lines = [
        f"{measure.name} (label {measure.label})",
        size if measure.voxels else "none in the box" if in_box else "is nowhere",
    ]
    if measure.mean is not None:
        lines.append(f"intensity {measure.mean:.1f} ± {measure.sd:.1f}")
    if measure.presence is not None:
        lines.append(f"{_presence(measure)} % sure that it is there")
    if measure.touches_border:
        faces = " and ".join(measure.border_faces.split())
        lines.append(f"touches the {'box' if in_box else 'field of view'}'s {faces} face: {_OUTSIDE}")
    return "\n".join(lines)
