"""One page for a cohort, `report.html`: what was done, what failed, what stands out, every case and its volumes.

The page is one file: it loads nothing, from the disk or from elsewhere, and opens without a server. Numbers and small
pictures are data in it, a few lines of plain JavaScript show them fifty cases at a time; so it stays light with
thousands of cases. Every name is text: as HTML it is escaped, as data it holds no "<".
"""

import json
import os
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from monai_unetfamily.inference.findings import (
    CaseSummary,
    Finding,
    Spread,
    find,
    format_size,
    size_of,
    spreads,
)
from monai_unetfamily.inference.strip_plot import strip_plot
from monai_unetfamily.volumes.colors import hex_color
from monai_unetfamily.volumes.files import atomic_file

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
            f"<title>{escape(title)}</title><style>{_asset('cohort_page.css')}</style></head><body><main>",
            *sections,
            f'</main><script type="application/json" id="data">{numbers}</script>',
            f"<script>{_asset('cohort_page.js')}</script></body></html>",
        ]
    )


def _asset(name: str) -> str:
    return (files(__package__) / name).read_text("utf-8")


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
    """What the script shows: `cohort_page.js` says what each letter means."""
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
    width, room, made = _WIDTHS[len(cases) > _MANY], _ROOM, []
    for case in cases:
        picture = _thumbnail(case.preview, width) if case.preview and room > 0 else ""
        room -= len(picture)
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
