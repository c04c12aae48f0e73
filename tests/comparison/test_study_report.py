"""Laws of a comparison's report: the same numbers in every form, a page that loads nothing, pictures to be read."""

import csv
import json
import re
from dataclasses import replace
from math import inf, isnan, nan
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from monai_unetfamily.comparison import study_report
from monai_unetfamily.comparison.statistics import Analysis, analyse
from monai_unetfamily.comparison.study_plots import NARROW, VARIABLES, WIDE, depths, place_labels, plots
from monai_unetfamily.comparison.study_report import format_report, write_report
from monai_unetfamily.comparison.study_results import Comparison, Point, Run, read_run, write_run
from monai_unetfamily.evaluation import Score
from tests.reporting.test_cohort_report import contrast
from tests.support.browser import DARK, LIGHT, ask
from tests.support.builds import built_once
from tests.support.comparisons import family, network_result, of
from tests.support.tiers import sampled

pytestmark = pytest.mark.slow

EVIL = "<script>window.hacked = 1</script>\"'&</script><!--"
CLASSES = ("liver", "spleen")


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return family(CLASSES, cases=8, absent=0.3)


@pytest.fixture(scope="module")
def analysis(comparison: Comparison) -> Analysis:
    return analyse(comparison)


@pytest.fixture(scope="module")
def report(comparison: Comparison, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_once(tmp_path_factory, "report", lambda folder: write_report(comparison, folder))


def ask_page(folder: Path, script: str, *view: Any) -> Any:
    """What a script finds on the page, whose own policy allows none."""
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    text = (folder / "compare.html").read_text()
    assert f'content="{policy}"' in text
    with TemporaryDirectory() as elsewhere:
        copy = Path(elsewhere) / "asked.html"
        copy.write_text(text.replace(policy, f"{policy}; script-src 'unsafe-inline'"))
        return ask(copy, script, *view)


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_every_form_is_there(report: Path) -> None:
    names = {file.relative_to(report).as_posix() for file in report.rglob("*") if file.is_file()}
    drawn = {"dice", "dice_by_class", "pareto", "depth", "false_positives", "learning"}
    tables = {"results.csv", "results.json", "results.md", "scores.csv", "compare.html"}
    assert names == tables | {f"plots/{name}.svg" for name in drawn}


def test_csv_json_and_markdown_hold_the_same_numbers(report: Path, analysis: Analysis) -> None:
    content = json.loads((report / "results.json").read_text())
    table = {(row["network"], row["label"]): row for row in rows_of(report / "results.csv")}
    text = (report / "results.md").read_text()
    assert [each["name"] for each in content["entrants"]] == [row.name for row in analysis.rows]
    for each, row in zip(content["entrants"], analysis.rows, strict=True):
        mean = table[row.name, "mean"]
        assert float(mean["dice"]) == each["mean"]["dice"]["value"] == row.overall.dice.value
        assert float(mean["dice_high"]) == each["mean"]["dice"]["high"]
        assert float(table[row.name, "spleen"]["dice"]) == each["classes"]["spleen"]["dice"]["value"]
        assert f"| {row.name.ljust(21)} | {row.overall.dice.value:.3f} [" in text
    assert content["advice"] in text


def test_json_is_strict(report: Path) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(word)

    json.loads((report / "results.json").read_text(), parse_constant=refuse)


def test_every_score_is_kept(report: Path, comparison: Comparison) -> None:
    assert len(rows_of(report / "scores.csv")) == sum(len(each.scores) for each in comparison.network_results)


def test_tables_of_markdown_have_as_many_cells_as_their_heads(analysis: Analysis) -> None:
    tables = re.findall(r"(?:^\|.*\|\n)+", format_report(analysis), re.MULTILINE)
    assert len(tables) == 3 + len(CLASSES) + 2
    assert all(len({line.count("|") for line in table.splitlines()}) == 1 for table in tables)


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    scores = (
        Score("a", "liver", nan, inf, 0.5, 1.0, 2.0, -1.0),
        Score("b", "cell", 0.5, 1.0, 0.5, nan, nan, nan, "px"),
    )
    run = Run(
        "unet", "seed 0", "", 1.5, 3, nan, (Point(0.5, 1.0, nan), Point(1.0, 0.5, 0.8)), {"": scores}, {"": (7, 9)}
    )
    write_run(run, tmp_path / "new" / "folder")
    assert repr(read_run(tmp_path / "new" / "folder")) == repr(run)
    (tmp_path / "result.json").write_text('{"network": "unet"}')
    with pytest.raises(ValueError, match="is no result of a comparison; remove its folder"):
        read_run(tmp_path)


def test_names_are_text_whatever_they_hold(tmp_path: Path) -> None:
    made = of({EVIL: 0.0, "unet": 0.01}, classes=[EVIL, "b"], cases=6)
    made = replace(made, dataset=EVIL, failures=((EVIL,) * 3,), differences={EVIL: EVIL}, facts={EVIL: EVIL})
    write_report(made, tmp_path)
    found = ask_page(
        tmp_path,
        """return {hacked: window.hacked ?? 0, title: document.title, scripts: document.scripts.length,
        names: [...document.querySelectorAll("#scores tbody th")].map((item) => item.textContent),
        drawn: [...document.querySelectorAll(".wide text")].some((item) => item.textContent.includes("<script>"))};""",
    )
    assert (found["hacked"], found["scripts"]) == (0, 1)  # the one that asks
    assert found["title"] == f"Comparison on {EVIL}"
    assert found["names"] == [EVIL, "unet"]
    assert found["drawn"]


def test_the_page_loads_nothing(report: Path) -> None:
    found = ask_page(
        report,
        """return {loaded: performance.getEntriesByType("resource").length,
        named: document.querySelectorAll("[src], link, iframe, object, embed, img").length};""",
    )
    assert found == {"loaded": 0, "named": 0}


@pytest.mark.parametrize(
    ("width", "scheme"), sampled([(1280, LIGHT), (1280, DARK), (400, LIGHT), (400, DARK)], (1280, LIGHT), (400, DARK))
)
def test_nothing_is_clipped_and_pictures_fit(width: int, scheme: str, report: Path) -> None:
    found = ask_page(
        report,
        """const over = [...document.querySelectorAll("body, body *")].filter((item) => {
          const free = ["auto", "scroll"].includes(getComputedStyle(item).overflowX);
          return !free && !(item instanceof SVGElement) && item.scrollWidth > item.clientWidth + 1
            && item.clientWidth > 0 && !item.querySelector("table") && !item.closest("#answer");
        });
        const root = document.documentElement;
        const shown = [...document.querySelectorAll(".plot > div")].filter((item) => item.clientWidth);
        const texts = [...document.querySelectorAll("svg text")].filter((item) => item.getBoundingClientRect().width);
        return {over: over.map((item) => item.outerHTML.slice(0, 120)), wide: root.scrollWidth - root.clientWidth,
        shown: [...new Set(shown.map((item) => item.className))], pictures: shown.length,
        height: Math.min(...texts.map((item) => item.getBoundingClientRect().height)),
        ink: getComputedStyle(texts[0]).fill};""",
        width,
        scheme,
    )
    assert found["over"] == []
    assert found["wide"] <= 0
    assert (found["shown"], found["pictures"]) == (["wide" if width > 700 else "narrow"], 6)
    assert found["height"] >= 9  # pixels: can be read
    assert found["ink"] == {LIGHT: "rgb(26, 28, 31)", DARK: "rgb(232, 234, 237)"}[scheme]


def test_colours_can_be_seen_and_told_apart() -> None:
    """WCAG 2.2, 1.4.11: marks against their ground at least 3 to 1; on paper the page's light ones."""
    light, dark = re.findall(
        r":root \{(.*?)\}", (Path(study_report.__file__).parent / "templates" / "study_report.css").read_text()
    )
    kinds = {"family", "reference", "depth", "variant"}
    for text, ground in ((light, "#ffffff"), (dark, "#101316")):
        colors = dict(re.findall(r"--(\w+): (#\w{6})", text))
        assert set(colors) == kinds
        assert all(contrast(color, ground) >= 3 for color in colors.values())
    drawn = {name: color for color, name in VARIABLES.items()}
    assert {name: drawn[name] for name in kinds} == dict(re.findall(r"--(\w+): (#\w{6})", light))


def test_pictures_take_the_pages_colours_and_files_their_own(report: Path) -> None:
    text = (report / "compare.html").read_text()
    inline = text[text.index("<svg") :]
    assert not [color for color in VARIABLES if color in inline]
    assert "var(--family)" in inline
    assert "var(" not in (report / "plots" / "dice.svg").read_text()


@pytest.mark.exhaustive
def test_equal_comparisons_are_equal_bytes(comparison: Comparison, report: Path, tmp_path: Path) -> None:
    write_report(comparison, tmp_path)
    for name in ("compare.html", "plots/pareto.svg", "results.csv"):
        assert (tmp_path / name).read_bytes() == (report / name).read_bytes()


@pytest.mark.parametrize("width", sampled([WIDE, NARROW], NARROW))
def test_names_in_the_scatter_plot_cover_nothing(width: float, analysis: Analysis) -> None:
    [pareto] = [plot for plot in plots(analysis) if plot.name == "pareto"]
    figure = pareto.draw(width)
    boxes = label_boxes(figure)
    assert len(boxes) == len(analysis.rows)
    assert overlaps(boxes) == []


def test_a_crowd_of_points_is_named_without_overlap() -> None:
    figure = Figure(figsize=(8, 5))
    axes = figure.subplots()
    points = {f"network {number}": (1 + 0.02 * (number % 4), 0.9 + 0.001 * (number // 4)) for number in range(16)}
    axes.scatter(*zip(*points.values(), strict=True))
    axes.set(xlim=(0, 2), ylim=(0.8, 1))
    place_labels(axes, points, color="black", leader="grey")
    assert overlaps(label_boxes(figure)) == []


def label_boxes(figure: Figure) -> dict[str, Any]:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    [axes] = figure.axes
    texts = [item for item in axes.texts if isinstance(item, Annotation) and item.get_text()]
    return {text.get_text(): text.get_window_extent(canvas.get_renderer()) for text in texts}


def overlaps(boxes: dict[str, Any]) -> list[tuple[str, str]]:
    return [(a, b) for a in boxes for b in boxes if a < b and boxes[a].overlaps(boxes[b])]


def test_levels_of_both_kinds_are_found(analysis: Analysis) -> None:
    cut, own = depths(analysis)
    assert [(level, row.name) for level, row in cut] == [
        (1, "unetplusplus L1"),
        (2, "unetplusplus L2"),
        (3, "unetplusplus L3"),
        (4, "unetplusplus"),
    ]
    assert [(level, row.name) for level, row in own] == [(1, "unet_l1"), (2, "unet_l2"), (3, "unet_l3"), (4, "unet")]


def test_a_comparison_of_one_without_time_or_curve_has_a_report(tmp_path: Path) -> None:
    lone = network_result("unet", cases=3, seconds=1.0)
    lone = replace(lone, cost=lone.cost._replace(seconds=nan, peak_bytes=nan), curves=())
    write_report(Comparison("a", 1.0, "seeds", (lone,)), tmp_path)
    assert [file.name for file in (tmp_path / "plots").iterdir()] == ["dice.svg"]
    [mean, liver] = rows_of(tmp_path / "results.csv")
    assert isnan(float(mean["seconds"]))
    assert liver["seconds"] == ""
