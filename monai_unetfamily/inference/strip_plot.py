"""A strip plot as inline SVG: one dot a case, a box of quartiles, the median."""

from collections.abc import Callable, Collection, Mapping
from html import escape
from zlib import crc32

from monai_unetfamily.inference.findings import Spread, format_size

_WIDTH, _HEIGHT, _MARGIN, _RING = 360, 44, 8, 6  # units of the drawing, about pixels
_LEVELS, _APART = 7, 4  # of dots above each other

_Across = Callable[[float], int]


def strip_plot(spread: Spread, ringed: Collection[str]) -> str:
    """Draw the sizes of one class along a line from the least to the largest; it scales to the width it is given.

    Dots are scattered up and down by their case's name, the same way every time, and drawn once where they coincide:
    the plot of thousands of cases stays small.

    Args:
        spread: of one class, with one size at least.
        ringed: the cases to draw a ring around; a pointer on it tells which.

    >>> spread = Spread(1, "liver", "ml", 2, {"a": 10.0, "b": 30.0}, {}, (), (15.0, 20.0, 25.0), {})
    >>> strip_plot(spread, ["b"]).count("<circle")
    1
    """
    sizes = [*spread.whole.values(), *spread.cut.values()]
    low, high = min(sizes), max(sizes)

    def across(size: float) -> int:
        part = (size - low) / (high - low) if high > low else 0.0
        return round(_MARGIN + part * (_WIDTH - 2 * _MARGIN))

    rings = "".join(_ring(case, spread, across) for case in ringed)
    drawing = _box(spread, across) + _dots(spread.whole, across, "dot") + _dots(spread.cut, across, "dot cut") + rings
    about = f"{spread.name}: {len(sizes)} cases from {format_size(low)} to {format_size(high)} {spread.unit}"
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(about)}">{drawing}</svg>'


def _box(spread: Spread, across: _Across) -> str:
    axis = f'<path class="axis" d="M0 {_HEIGHT // 2}H{_WIDTH}"/>'
    if not spread.quartiles:
        return axis
    low, middle, high = map(across, spread.quartiles)
    box = f'<rect x="{low}" y="4" width="{max(high - low, 1)}" height="{_HEIGHT - 8}" rx="2"/>'
    return f'{axis}{box}<path class="median" d="M{middle} 2V{_HEIGHT - 2}"/>'


def _dots(sizes: Mapping[str, float], across: _Across, kind: str) -> str:
    places = sorted({(across(size), _up(case)) for case, size in sizes.items()})
    return f'<path class="{kind}" d="{"".join(f"M{x} {y}h0" for x, y in places)}"/>' if places else ""


def _ring(case: str, spread: Spread, across: _Across) -> str:
    about = f"{case}: {format_size(spread.whole[case])} {spread.unit}"
    place = f'cx="{across(spread.whole[case])}" cy="{_up(case)}" r="{_RING}"'
    return f"<circle {place}><title>{escape(about)}</title></circle>"


def _up(case: str) -> int:
    return _HEIGHT // 2 + (crc32(case.encode("utf-8", "replace")) % _LEVELS - _LEVELS // 2) * _APART
