"""One page for a comparison, `compare.html`: the advice, pictures, tables. It loads nothing and needs no server.

It looks like the page of a cohort, whose style it shares, in light and dark and on narrow screens. Pictures are drawn
twice, wide and narrow, and take the page's colours. Every name is escaped.
"""

import re
from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files

from monai_unetfamily.training.comparing.analysis import Analysis
from monai_unetfamily.training.comparing.plots import NARROW, VARIABLES, WIDE, Plot
from monai_unetfamily.training.comparing.rows import (
    DEFINITIONS,
    Rows,
    class_rows,
    cost_rows,
    difference_rows,
    failure_rows,
    score_rows,
)

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLES = ("monai_unetfamily.inference", "cohort_page.css"), (__package__, "page.css")
_COLOR = re.compile("|".join(VARIABLES))
_NUMBERED = re.compile(r' id="[\w.]+_\d+"')  # nothing refers to them, and every picture has the same


def compose(analysis: Analysis, advice: str, pictures: Sequence[Plot]) -> str:
    """The page as text.

    Args:
        analysis: of the comparison.
        advice: the paragraph.
        pictures: in the order of the page.
    """
    title = f"Comparison on {analysis.comparison.dataset}"
    style = "".join((files(package) / name).read_text("utf-8") for package, name in _STYLES)
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{style}</style></head><body><main>",
            *_header(analysis, title, advice),
            *_sections(analysis, pictures),
            "</main></body></html>\n",
        ]
    )


def _header(analysis: Analysis, title: str, advice: str) -> Iterator[str]:
    found = analysis.comparison
    tiles = [
        ("networks", len(found.trained), ""),
        ("cases", analysis.cases, ""),
        ("failed", len(found.failures), "bad"),
    ]
    shown = "".join(f'<li class="{kind if count else ""}"><b>{count}</b> {name}</li>' for name, count, kind in tiles)
    facts = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(words)}</dd></div>" for name, words in found.facts.items()
    )
    yield f'<header><h1>{escape(title)}</h1><p id="advice">{escape(advice)}</p>'
    yield f'<ul class="tiles">{shown}</ul><dl>{facts}</dl></header>'


def _sections(analysis: Analysis, pictures: Sequence[Plot]) -> Iterator[str]:
    found = analysis.comparison
    if found.failures:
        yield _section("failures", "Failed", _table(failure_rows(found)))
    yield _section("scores", "Scores", _table(score_rows(analysis)))
    yield _section("cost", "Cost", _table(cost_rows(analysis)))
    for plot in pictures:
        yield _section(plot.name, plot.title, _picture(plot))
    if len(found.classes) > 1:
        tables = (f"<h3>{escape(label)}</h3>{_table(class_rows(analysis, label))}" for label in found.classes)
        yield _section("classes", "Each class", "".join(tables))
    if found.differences:
        yield _section("differences", "Where networks differ from the common recipe", _table(difference_rows(found)))
    listed = "".join(f"<li>{escape(text)}</li>" for text in DEFINITIONS)
    yield _section("definitions", "How to read it", f"<ul>{listed}</ul>")


def _section(name: str, title: str, content: str) -> str:
    return f'<section id="{name}"><h2>{escape(title)}</h2>{content}</section>'


def _picture(plot: Plot) -> str:
    drawn = "".join(
        f'<div class="{name}" role="img" aria-label="{escape(plot.about)}">{_in_page_colors(plot.svg(width))}</div>'
        for name, width in (("wide", WIDE), ("narrow", NARROW))
    )
    return f'<p class="muted">{escape(plot.about)}</p><div class="plot">{drawn}</div>'


def _in_page_colors(svg: str) -> str:
    inner = _NUMBERED.sub("", svg[svg.index("<svg") :])
    return _COLOR.sub(lambda match: f"var(--{VARIABLES[match[0]]})", inner)


def _table(rows: Rows) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in rows[0])
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(map(_cell, cells))}</tr>' for name, *cells in rows[1:]
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll" tabindex="0" role="region" aria-label="Table">{table}</div>'


def _cell(text: str) -> str:
    value, bracket, ends = escape(text).partition(" [")  # an interval goes below its value
    return f"<td>{value}{bracket and f' <small>[{ends}</small>'}</td>"
