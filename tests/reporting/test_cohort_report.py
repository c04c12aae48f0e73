"""Laws of the cohort's page: it tells what it was given and nothing else, loads nothing, and a browser shows it all."""

import re
from dataclasses import replace
from pathlib import Path
from statistics import median
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from PIL import Image

from monai_unetfamily.reporting import CaseSummary, Measure, cohort_report, write_page
from monai_unetfamily.reporting.cohort_report import Finding, find, robust_scores, spreads
from tests.support.browser import DARK, LIGHT, ask

EVIL = "<script>window.hacked = 1</script>\"'&</script><!--"
FACTS = {"bundle": "phantom_ct", "settings": EVIL}


def row(label: int, name: str, ml: float, cut: bool = False) -> Measure:
    absent = Measure("", label, name, 0.0, 0, *[None] * 5, "mm", *[None] * 6, False, "", None)
    return absent if not ml else absent._replace(volume_ml=ml, voxels=1000, touches_border=cut)


def case(number: int, liver: float, spleen: float = 200.0, cut: bool = False) -> CaseSummary:
    return CaseSummary(f"case {number}", [row(1, "liver", liver, cut), row(2, "spleen", spleen)], seconds=number + 0.5)


def cohort() -> list[CaseSummary]:
    """Twelve livers from 1000 ml on; one unlikely, one cut, one absent; a case that failed."""
    cases = [case(number, 1000.0 + 10 * number) for number in range(12)]
    cases[3] = case(3, 9000.0)
    cases[5] = case(5, 400.0, cut=True)
    cases[7] = replace(case(7, 0.0), notes=("sform and qform disagree",))
    return [*cases, CaseSummary("case 12", error="scan.nii.gz: a whole file is needed")]


def page(folder: Path, cases: list[CaseSummary], title: str = "Cohort") -> Path:
    write_page(cases, folder / "report.html", FACTS, title)
    return folder / "report.html"


def png(path: Path, size: tuple[int, int] = (1500, 800)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), np.uint8)).save(path)
    return path


def test_findings_are_those_of_the_cohort() -> None:
    liver, spleen = spreads(cohort())
    assert (liver.cases, len(liver.whole), set(liver.cut)) == (12, 10, {"case 5"})
    assert liver.quartiles == pytest.approx(np.quantile(list(liver.whole.values()), (0.25, 0.5, 0.75)))
    kinds = {(finding.case, finding.kind) for finding in find(liver)}
    assert kinds == {("case 3", "outlier"), ("case 5", "cut"), ("case 7", "absent")}
    assert find(spleen) == []


def test_scores_are_iglewicz_and_hoaglins() -> None:
    sizes = np.random.default_rng(0).lognormal(5, 0.3, 30)
    logs = np.log(sizes)
    expected = 0.6745 * (logs - median(logs)) / median(abs(logs - median(logs)))
    scores = robust_scores({str(number): size for number, size in enumerate(sizes)})
    assert list(scores.values()) == pytest.approx(list(expected))
    twice = robust_scores({str(number): 2 * size for number, size in enumerate(sizes)})
    assert list(twice.values()) == pytest.approx(list(expected))  # no unit
    assert robust_scores({str(number): size for number, size in enumerate(sizes[:7])}) == {}
    assert robust_scores(dict.fromkeys("abcdefghi", 3.0) | {"j": 9.0}) == {}


def test_a_cut_organ_counts_for_no_size() -> None:
    """However small what is in view, it moves no quartile and is no outlier."""
    whole = [case(number, 1000.0 + number) for number in range(9)]
    [liver, _] = spreads([*whole, case(9, 1.0, cut=True)])
    assert liver.quartiles == spreads(whole)[0].quartiles
    assert find(liver) == [Finding("case 9", 1, "cut", "liver: cut by the field of view")]


def test_a_class_outside_a_box_is_not_absent_and_one_at_its_faces_is_cut_by_it() -> None:
    cases = [replace(case, boxed=True) for case in cohort()]
    findings = [finding for spread in spreads(cases) for finding in find(spread)]
    assert "absent" not in {finding.kind for finding in findings}
    cut = [finding.text for finding in findings if finding.kind == "cut"]
    assert cut
    assert all(text.endswith("cut by the box") for text in cut)


def test_a_class_that_few_cases_have_is_missed_nowhere() -> None:
    assert find(spreads([case(0, 100.0), case(1, 0.0)])[0]) == []


@pytest.mark.slow
def test_a_case_with_fewer_classes_keeps_its_sizes_in_their_columns(tmp_path: Path) -> None:
    cases = [case(0, 100.0), CaseSummary("spleen alone", [row(2, "spleen", 77.0)])]
    cells = "return [...document.querySelectorAll('tbody tr:last-child .size')].map((cell) => cell.textContent);"
    assert ask(page(tmp_path, cases), cells) == ["", "77.0", ""]


def test_the_browser_shows_every_case(tmp_path: Path) -> None:
    found = ask(
        page(tmp_path, cohort()),
        """const texts = (query) => [...document.querySelectorAll(query)].map((item) => item.textContent);
        return {names: texts("tbody th"), heads: texts("#table thead th"), tiles: texts(".tiles li"),
        liver: texts("#table tbody td:nth-child(3)"), cards: texts(".card h3"), failures: texts("#failures tr"),
        findings: texts("#table tbody td:nth-child(2)")};""",
    )
    assert found["names"][1:] == [f"case {number}" for number in range(13)]
    assert found["heads"] == ["Case", "Findings", "liver", "spleen", "Seconds"]
    assert found["tiles"] == ["12 done", "1 failed", "3 with findings"]
    assert found["liver"][2:8] == ["1020", "9000unlikely", "1040", "400cut", "1060", "0absent"]
    assert found["liver"][12] == ""
    assert found["cards"] == ["liver", "spleen"]
    assert found["failures"] == ["case 12scan.nii.gz: a whole file is needed"]
    assert found["findings"][7] == "liver: absent, 11 of 12 cases have itsform and qform disagree"


def test_cases_are_sorted_filtered_and_paged(tmp_path: Path) -> None:
    many = [*cohort(), *(case(number, 2000.0 - number) for number in range(13, 130))]
    found = ask(
        page(tmp_path, many),
        """const names = () => [...document.querySelectorAll("#table tbody th")].map((item) => item.textContent);
        const click = (query) => document.querySelector(query).click();
        const type = (words) => { const box = document.getElementById("text"); box.value = words; box.oninput(); };
        const choose = (kind) => { const box = document.getElementById("show"); box.value = kind; box.onchange(); };
        const seen = {};
        seen.first = names();
        click("#next"); click("#next"); seen.last = names(); seen.end = document.getElementById("next").disabled;
        click("#table th:nth-child(3) button"); seen.up = names();
        seen.mark = document.querySelector("#table th:nth-child(3)").getAttribute("aria-sort");
        click("#table th:nth-child(3) button"); seen.down = names();
        click("#table th:nth-child(1) button"); seen.byName = names();
        type("CASE 12"); seen.typed = names();
        type(""); choose("failed"); seen.failed = names();
        choose("notes"); seen.notes = names();
        choose("findings"); seen.findings = names();
        click("[data-case='case 5']"); seen.clicked = names();
        seen.count = document.getElementById("count").textContent;
        return seen;""",
    )
    assert found["first"] == [f"case {number}" for number in range(50)]
    assert found["last"] == [f"case {number}" for number in range(100, 130)]
    assert found["end"] is True
    assert (found["up"][:2], found["mark"]) == (["case 7", "case 5"], "ascending")
    assert found["down"][0] == "case 3"
    assert found["byName"] == found["first"]  # numbers in names count as numbers
    assert found["typed"] == ["case 12", *(f"case {number}" for number in range(120, 130))]
    assert found["failed"] == ["case 12"]
    assert found["notes"] == ["case 7"]
    assert {"case 3", "case 5", "case 7"} <= set(found["findings"])
    assert found["clicked"][0] == "case 5"
    assert found["count"].startswith(f"{len(found['clicked'])} of 130 cases")


def test_names_are_text(tmp_path: Path) -> None:
    """Whoever named a case, class, note, reason, setting or folder: nothing of it is run or taken for markup."""
    cases = [replace(case(number, 100.0), name=f"{EVIL}{number}", notes=(EVIL,)) for number in range(9)]
    cases[0] = replace(cases[0], measures=[row(1, "liver", 5000.0), row(2, "spleen", 200.0, True)])
    cases = [replace(item, measures=[r._replace(name=EVIL) for r in item.measures]) for item in cases]
    preview = png(tmp_path / 'previews #1 "%20<b>' / "a?.png", (40, 30))
    written = page(tmp_path, [replace(cases[0], preview=preview), *cases[1:], CaseSummary(EVIL, error=EVIL)], EVIL)
    found = ask(
        written,
        """const texts = (query) => [...document.querySelectorAll(query)].map((item) => item.textContent);
        return {hacked: window.hacked ?? 0, scripts: document.scripts.length, title: document.title,
        names: texts("#table tbody th"), facts: texts("dd"), failures: texts("#failures td"), heads: texts("h1, h3"),
        links: [...document.querySelectorAll("#table a")].map((link) => link.href)};""",
    )
    assert (found["hacked"], found["scripts"]) == (0, 3)  # data, the page's own, and the one that asks
    assert found["title"] == EVIL
    assert found["names"] == [*(f"{EVIL}{number}" for number in range(9)), EVIL]
    assert found["facts"] == ["phantom_ct", EVIL]
    assert found["failures"] == [EVIL]
    assert found["heads"] == [EVIL] * 3
    assert [Path(unquote(urlsplit(link).path)) for link in found["links"]] == [preview]


@pytest.mark.slow
def test_the_page_loads_nothing(tmp_path: Path) -> None:
    written = page(tmp_path, [replace(case(0, 100.0), preview=png(tmp_path / "a.png"))])
    found = ask(
        written,
        """const loaded = performance.getEntriesByType("resource").map((entry) => entry.name.slice(0, 30));
        const named = [...document.querySelectorAll("[src], link, iframe, object, embed")].map((item) => item.src);
        const foreign = named.filter((name) => !name.startsWith("data:image/jpeg"));
        return {loaded, pictures: named.length, foreign};""",
    )
    assert [name for name in found["loaded"] if not name.startswith("data:")] == []
    assert (found["pictures"], found["foreign"]) == (1, [])
    assert "content=\"default-src 'none'; img-src data:;" in written.read_text("utf-8")


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("classes", [1, 105])
def test_nothing_is_clipped(width: int, scheme: str, classes: int, tmp_path: Path) -> None:
    names = [f"a_rather_long_name_of_class_{label}" for label in range(1, classes + 1)]
    rows = [row(label, name, 100.0 + label, label % 9 == 0) for label, name in enumerate(names, start=1)]
    cases = [CaseSummary(f"sub-{number}/ses-1/anat/sub-{number}_ses-1_run-1_T1w", rows) for number in range(3)]
    long = "f" * 300
    written = page(tmp_path, [*cases, CaseSummary(long, error=f"{long}.nii.gz: damaged"), replace(cases[0], name=long)])
    found = ask(
        written,
        """const over = [...document.querySelectorAll("body, body *")].filter((item) => {
          const free = ["auto", "scroll"].includes(getComputedStyle(item).overflowX);
          return !free && !(item instanceof SVGElement) && item.scrollWidth > item.clientWidth + 1
            && item.clientWidth > 0 && !item.closest("select, input") && !item.querySelector("table")
            && !item.closest("#answer");
        });
        const root = document.documentElement;
        return {over: over.map((item) => item.outerHTML.slice(0, 120)), wide: root.scrollWidth - root.clientWidth,
        width: innerWidth, ground: getComputedStyle(document.body).backgroundColor};""",
        width,
        scheme,
    )
    assert found["width"] == width
    assert found["over"] == []
    assert found["wide"] <= 0
    assert found["ground"] == {LIGHT: "rgb(255, 255, 255)", DARK: "rgb(16, 19, 22)"}[scheme]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_can_be_read(scheme: int) -> None:
    """WCAG 2.2, 1.4.3: text against its ground at least 4.5 to 1; 1.4.11: dots and rings at least 3 to 1."""
    css = (Path(cohort_report.__file__).parent / "templates" / "cohort_report.css").read_text()
    colors = dict(re.findall(r"--(\w+): (#\w{6})", re.findall(r":root \{(.*?)\}", css, re.DOTALL)[scheme]))
    for ground in ("ground", "raised"):
        for ink in ("ink", "muted", "link", "warn", "bad"):
            assert contrast(colors[ink], colors[ground]) >= 4.5, (ink, ground)
    for mark in ("dot", "warn", "bad"):
        assert contrast(colors[mark], colors["ground"]) >= 3, mark


def contrast(a: str, b: str) -> float:
    low, high = sorted(luminance(color) for color in (a, b))
    return (high + 0.05) / (low + 0.05)


def luminance(color: str) -> float:
    parts = np.array(list(bytes.fromhex(color[1:]))) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


@pytest.mark.slow
def test_thumbnails_are_small_and_their_room_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preview = png(tmp_path / "a.png")
    cases = [replace(case(number, 100.0), preview=preview) for number in range(4)]
    whole = page(tmp_path, cases)
    sizes = "return [...document.querySelectorAll('#table img')].map((item) => [item.naturalWidth, item.loading]);"
    assert ask(whole, sizes) == [[288, "lazy"]] * 4
    monkeypatch.setattr(cohort_report, "_ROOM", 1)
    text = page(tmp_path, cases).read_text("utf-8")
    assert "linked without a picture: 3" in text
    assert text.count('"p":"a.png"') == 4
    monkeypatch.setattr(cohort_report, "_MANY", 3)
    assert ask(page(tmp_path, cases), sizes) == [[160, "lazy"]]


def test_a_preview_that_is_gone_or_damaged_costs_no_page(tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(png(tmp_path / "a.png").read_bytes()[:500])
    cases = [replace(case(0, 1.0), preview=tmp_path / name) for name in ("cut.png", "gone.png")]
    assert "linked without a picture: 2" in page(tmp_path, cases).read_text("utf-8")


@pytest.mark.parametrize("cases", [[], [case(0, 100.0)], [CaseSummary("a", error="no")]], ids=["none", "one", "failed"])
def test_small_cohorts_have_a_page(cases: list[CaseSummary], tmp_path: Path) -> None:
    count = ask(page(tmp_path, cases), "return document.getElementById('count').textContent;")
    assert count == f"{len(cases)} of {len(cases)} cases"


@pytest.mark.slow
def test_thousands_of_cases_are_a_page_of_megabytes(tmp_path: Path) -> None:
    rows = [row(label, f"class {label}", 100.0 + label) for label in range(1, 6)]
    cases = [CaseSummary(f"case {number}", rows) for number in range(5000)]
    written = page(tmp_path, cases)
    assert written.stat().st_size < 2e6
    assert ask(written, "return document.querySelectorAll('#table tbody tr').length;") == 50


def test_equal_cohorts_are_equal_bytes(tmp_path: Path) -> None:
    assert page(tmp_path, cohort()).read_bytes() == page(tmp_path, cohort()).read_bytes()


def test_pictures_are_reported_in_pixels(tmp_path: Path) -> None:
    cells = [row(1, "cell", 1.0)._replace(volume_ml=None, voxels=40 + number, unit="px") for number in range(3)]
    text = page(tmp_path, [CaseSummary(str(number), [cell]) for number, cell in enumerate(cells)]).read_text("utf-8")
    assert "Sizes are in px." in text
    assert "<b>41.0 px</b> [40.5, 41.5]" in text
