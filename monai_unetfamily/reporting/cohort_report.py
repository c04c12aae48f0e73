"""The report of a cohort (`report.html`): failures, findings, volumes, previews."""

import json
import os
from base64 import b64encode
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from io import BytesIO
from math import log
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Literal, NamedTuple
from urllib.parse import quote
from zlib import crc32

from PIL import Image

from monai_unetfamily.io import atomic_file, hex_color
from monai_unetfamily.reporting.measures import Measure

# What a reader of a cohort should look at first: organs that are cut, missing or of an unlikely size.


_UNLIKELY = 3.5  # robust z, as Iglewicz and Hoaglin, How to Detect and Handle Outliers (1993), advise
_ENOUGH = 8  # cases, before a size is called unlikely
_MOST = 0.5  # of the cases have a class: then one without it is worth a look
_NORMAL = 0.6745  # the median absolute deviation of a normal distribution, in standard deviations

Kind = Literal["cut", "absent", "outlier"]


@dataclass(frozen=True)
class CaseSummary:
    """What is known of one case when its cohort is reported."""

    name: str
    measures: Sequence[Measure] = ()  # one a class, the same classes in every case that is done
    preview: Path | None = None  # its PNG
    notes: tuple[str, ...] = ()
    error: str = ""  # why it failed; empty where it did not
    seconds: float | None = None  # of work
    boxed: bool = False  # whether only a box of it was segmented


class Finding(NamedTuple):
    """Something to look at in one case."""

    case: str
    label: int
    kind: Kind
    text: str


class Spread(NamedTuple):
    """The sizes of one class over all cases that are done; ml, or pixels in pictures."""

    label: int
    name: str
    unit: str
    cases: int
    whole: dict[str, float]  # case -> size, where the class lies wholly in the field of view
    cut: dict[str, float]  # case -> size of what is in view
    absent: tuple[str, ...]  # cases without it; cases of which only a box was segmented are left out
    quartiles: tuple[float, float, float] | None  # of the whole ones; None below two
    scores: dict[str, float]  # case -> robust z of the whole ones; none below eight cases
    boxed: frozenset[str] = frozenset()  # cases of which only a box was segmented


def spreads(cases: Sequence[CaseSummary]) -> list[Spread]:
    """The sizes of each class, in the order of the classes.

    An organ that the field of view cuts has no size to compare: it counts neither for quartiles nor for scores.
    """
    rows: dict[int, dict[str, Measure]] = {}
    for case in cases:
        for row in case.measures:
            rows.setdefault(row.label, {})[case.name] = row
    boxed = frozenset(case.name for case in cases if case.boxed)
    return [_spread(label, found, boxed) for label, found in rows.items()]


def find(spread: Spread) -> list[Finding]:
    """What stands out in one class: cut by the field of view, absent where most cases have it, an unlikely size.

    >>> sizes = {f"case {number}": 100.0 + number for number in range(9)} | {"case 9": 10.0}
    >>> [finding] = find(Spread(1, "liver", "ml", 10, sizes, {}, (), None, robust_scores(sizes)))
    >>> finding.case, finding.kind, finding.text
    ('case 9', 'outlier', 'liver: 10.0 ml, robust z -65.2')
    """
    texts: list[tuple[str, Kind, str]] = [
        (case, "cut", f"cut by the {'box' if case in spread.boxed else 'field of view'}") for case in spread.cut
    ]
    for case, score in spread.scores.items():
        if abs(score) > _UNLIKELY:
            texts.append((case, "outlier", f"{format_size(spread.whole[case])} {spread.unit}, robust z {score:+.1f}"))
    present = spread.cases - len(spread.absent)
    if present > _MOST * spread.cases:
        texts += [(case, "absent", f"absent, {present} of {spread.cases} cases have it") for case in spread.absent]
    return [Finding(case, spread.label, kind, f"{spread.name}: {text}") for case, kind, text in texts]


def robust_scores(sizes: dict[str, float]) -> dict[str, float]:
    """The robust z of each size's logarithm: 0.6745 (x - median) / median absolute deviation.

    None below eight sizes, and none where more than half are equal, so that nothing can be called unlikely.

    >>> robust_scores({str(number): 10.0**number for number in range(9)})["8"]
    1.349
    """
    logs = {case: log(size) for case, size in sizes.items()}
    if len(logs) < _ENOUGH:
        return {}
    middle = median(logs.values())
    spread = median(abs(value - middle) for value in logs.values())
    return {case: _NORMAL * (value - middle) / spread for case, value in logs.items()} if spread else {}


def format_size(size: float) -> str:
    """Three digits, and no more than two after the point.

    >>> [format_size(size) for size in (0.123, 1.5, 33.333, 1500.4)]
    ['0.12', '1.50', '33.3', '1500']
    """
    return f"{size:.{2 if size < 10 else 1 if size < 100 else 0}f}"


def size_of(row: Measure) -> float:
    """Return ml, or pixels in a picture."""
    return float(row.voxels) if row.volume_ml is None else row.volume_ml


def _spread(label: int, rows: dict[str, Measure], boxed: frozenset[str]) -> Spread:
    present = {case: row for case, row in rows.items() if row.voxels}
    cut = {case: size_of(row) for case, row in present.items() if row.touches_border}
    whole = {case: size_of(row) for case, row in present.items() if not row.touches_border}
    known = {case: row for case, row in rows.items() if row.voxels or case not in boxed}
    absent = tuple(case for case in known if case not in present)
    first = next(iter(rows.values()))
    unit = "px" if first.volume_ml is None else "ml"
    low, middle, high = quantiles(whole.values(), n=4, method="inclusive") if len(whole) > 1 else (0.0,) * 3
    quartiles = (low, middle, high) if len(whole) > 1 else None
    return Spread(label, first.name, unit, len(known), whole, cut, absent, quartiles, robust_scores(whole), boxed)


# A strip plot as inline SVG: one dot a case, a box of quartiles, the median.

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


# One page for a cohort, `report.html`: what was done, what failed, what stands out, every case and its volumes.
#
# The page is one file: it loads nothing, from the disk or from elsewhere, and opens without a server. Numbers and small
# pictures are data in it, a few lines of plain JavaScript show them fifty cases at a time; so it stays light with
# thousands of cases. Every name is text: as HTML it is escaped, as data it holds no "<".

_MANY = 1000  # cases: from here on thumbnails are smaller
_WIDTHS = 288, 160  # pixels, of a thumbnail among few and many
_QUALITY = 68  # of JPEG
_ROOM = 30 * 2**20  # bytes of thumbnails; a case beyond has a link alone
_LISTED = 6  # cases named beside a class; the table finds the others
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_ABOUT = (
    "Each dot is a case. The box spans the quartiles, the line in it is the median, of organs that lie wholly in the"
    " field of view; small orange dots are cut by it. A ring marks a robust z of the log volume beyond 3.5, reckoned"
    " from 8 cases on."
)
_KINDS = {"outlier": "unlikely size", "absent": "absent", "cut": "cut by the field of view"}


def write_page(cases: Sequence[CaseSummary], path: Path, facts: Mapping[str, str], title: str = "Cohort") -> None:
    """Write the page of a cohort, whole or not at all.

    Args:
        cases: done and failed, in the order of the table.
        path: of the HTML file; links to previews are relative to its folder.
        facts: what the header tells, in order: bundle, versions, settings, time.
        title: of the page.

    Raises:
        OSError: the file cannot be written.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "report.html"
    ...     write_page([CaseSummary("ct-7", error="no such file")], path, {"bundle": "phantom_ct"})
    ...     "<dd>phantom_ct</dd>" in path.read_text("utf-8")
    True
    """
    found = spreads(cases)
    findings = [finding for spread in found for finding in find(spread)]
    thumbnails = _thumbnails(cases)
    data = _data(cases, found, findings, thumbnails, path.parent)
    text = _page(title, [_header(cases, findings, facts, title), *_sections(cases, found, findings, thumbnails)], data)
    with atomic_file(path) as stream:
        stream.write(text.encode("utf-8", "replace"))


def _page(title: str, sections: Sequence[str], data: Mapping[str, Any]) -> str:
    numbers = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{_asset('cohort_report.css')}</style></head><body><main>",
            *sections,
            f'</main><script type="application/json" id="data">{numbers}</script>',
            f"<script>{_asset('cohort_report.js')}</script></body></html>",
        ]
    )


def _asset(name: str) -> str:
    return (files(__package__) / "templates" / name).read_text("utf-8")


def _header(cases: Sequence[CaseSummary], findings: Sequence[Finding], facts: Mapping[str, str], title: str) -> str:
    failed = sum(bool(case.error) for case in cases)
    marked = len({finding.case for finding in findings})
    tiles = [("done", len(cases) - failed, ""), ("failed", failed, "bad"), ("with findings", marked, "warn")]
    shown = "".join(f'<li class="{kind if count else ""}"><b>{count}</b> {name}</li>' for name, count, kind in tiles)
    parts = [("failures", failed), ("cases", True), ("classes", failed < len(cases))]
    links = "".join(f'<a href="#{part}">{part.capitalize()}</a>' for part, there in parts if there)
    listed = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items())
    return f'<header><h1>{escape(title)}</h1><ul class="tiles">{shown}</ul><dl>{listed}</dl><nav>{links}</nav></header>'


def _sections(
    cases: Sequence[CaseSummary], found: Sequence[Spread], findings: Sequence[Finding], thumbnails: Sequence[str]
) -> Iterator[str]:
    if failures := [case for case in cases if case.error]:
        rows = "".join(f"<tr><th>{escape(case.name)}</th><td>{escape(case.error)}</td></tr>" for case in failures)
        table = f'<div class="scroll" tabindex="0"><table class="plain">{rows}</table></div>'
        yield f'<section id="failures"><h2>Failures</h2>{table}</section>'
    unpictured = sum(bool(case.preview) for case in cases) - sum(map(bool, thumbnails))
    yield _table(unpictured, found[0].unit if found else "")
    if found:
        by_label: dict[int, list[Finding]] = {}
        for finding in findings:
            by_label.setdefault(finding.label, []).append(finding)
        cards = "".join(_card(spread, by_label.get(spread.label, [])) for spread in found)
        about = f'<p class="muted">{_ABOUT}</p>'
        yield f'<section id="classes"><h2>Classes</h2>{about}<div class="cards">{cards}</div></section>'


def _table(unpictured: int, unit: str) -> str:
    about = f"Sizes are in {unit}." if unit else ""
    reasons = "there is room for no more, or the file cannot be read"
    without = f" Previews that are linked without a picture: {unpictured}; {reasons}." if unpictured else ""
    options = [("all", "all"), ("findings", "with findings"), ("failed", "failed"), ("notes", "with notes")]
    choices = "".join(f'<option value="{value}">{name}</option>' for value, name in options)
    return (
        '<section id="cases"><h2>Cases</h2><form id="filter"><label>Case, finding or note contains'
        f' <input type="search" id="text"></label><label>Show <select id="show">{choices}</select></label></form>'
        '<noscript><p class="warn">The table needs JavaScript; volumes.csv holds its numbers.</p></noscript>'
        f'<p id="count" class="muted" role="status"></p><p class="muted">{about}{without}</p>'
        '<div class="scroll" tabindex="0" role="region" aria-label="Table of cases"><table id="table"></table></div>'
        '<p class="pages"><button type="button" id="previous">Previous</button>'
        ' <button type="button" id="next">Next</button></p></section>'
    )


def _card(spread: Spread, findings: Sequence[Finding]) -> str:
    sizes = [*spread.whole.values(), *spread.cut.values()]
    head = f'<h3><i style="background:{hex_color(spread.label)}"></i>{escape(spread.name)}</h3>'
    facts = [f"in {len(sizes)} of {spread.cases} cases"]
    if spread.quartiles:
        low, middle, high = map(format_size, spread.quartiles)
        facts.insert(0, f"<b>{middle} {spread.unit}</b> [{low}, {high}]")
    if not sizes:
        return f'<article class="card">{head}<p>{facts[0]}</p></article>'
    ends = "".join(f"<span>{format_size(size)} {spread.unit}</span>" for size in sorted({min(sizes), max(sizes)}))
    lists = "".join(_named(kind, [f.case for f in findings if f.kind == kind]) for kind in _KINDS)
    plot = strip_plot(spread, {finding.case for finding in findings if finding.kind == "outlier"})
    return f'<article class="card">{head}<p>{"; ".join(facts)}</p>{plot}<p class="ends">{ends}</p>{lists}</article>'


def _named(kind: str, cases: Sequence[str]) -> str:
    if not cases:
        return ""
    safe = [escape(case) for case in cases[:_LISTED]]
    shown = "".join(f'<button type="button" data-case="{case}">{case}</button>' for case in safe)
    more = f" and {len(cases) - _LISTED} more" if len(cases) > _LISTED else ""
    return f'<p class="{kind}">{_KINDS[kind]} ({len(cases)}): {shown}{more}</p>'


def _data(
    cases: Sequence[CaseSummary],
    found: Sequence[Spread],
    findings: Sequence[Finding],
    thumbnails: Sequence[str],
    folder: Path,
) -> dict[str, Any]:
    """What the script shows: `cohort_report.js` says what each letter means."""
    classes = [{"name": spread.name, "color": hex_color(spread.label)} for spread in found]
    marks: dict[str, list[tuple[int, str, str]]] = {}
    place = {spread.label: number for number, spread in enumerate(found)}
    for finding in findings:
        marks.setdefault(finding.case, []).append((place[finding.label], finding.kind, finding.text))
    rows = [
        {
            "n": case.name,
            "v": _sizes(case, place),
            "f": marks.get(case.name, []),
            "p": _link(case.preview, folder),
            "t": thumbnail,
            "e": case.error,
            "o": list(case.notes),
            "s": case.seconds,
        }
        for case, thumbnail in zip(cases, thumbnails, strict=True)
    ]
    return {"classes": classes, "cases": rows}


def _sizes(case: CaseSummary, place: Mapping[int, int]) -> list[float | None]:
    sizes: list[float | None] = [None] * (len(place) if case.measures else 0)
    for row in case.measures:
        size = size_of(row)
        sizes[place[row.label]] = float(f"{size:.3g}") if size < 1000 else round(size)
    return sizes


def _link(preview: Path | None, folder: Path) -> str:
    return quote(Path(os.path.relpath(preview, folder)).as_posix()) if preview else ""


def _thumbnails(cases: Sequence[CaseSummary]) -> list[str]:
    """JPEG in base64 for each case; empty where there is no picture, or no room for it."""
    width, budget, made = _WIDTHS[len(cases) > _MANY], _ROOM, []
    for case in cases:
        picture = _thumbnail(case.preview, width) if case.preview and budget > 0 else ""
        budget -= len(picture)
        made.append(picture)
    return made


def _thumbnail(preview: Path, width: int) -> str:
    stream = BytesIO()
    try:
        with Image.open(preview) as picture:
            picture.thumbnail((width, width))
            picture.convert("RGB").save(stream, "JPEG", quality=_QUALITY, optimize=True)
    except OSError:  # gone or damaged: the row says that there is none
        return ""
    return b64encode(stream.getvalue()).decode()
