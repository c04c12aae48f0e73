"""How many cases the suite holds, by its tables alone: what docs/reliability.md quotes."""

from math import prod
from types import ModuleType
from typing import NamedTuple

from tests.io.test_nifti import ORIENTATIONS
from tests.reliability import test_concurrency, test_properties, test_shortages
from tests.reliability.bad_inputs import ROWS
from tests.reliability.damage import BOMBS, CUTS, FLIPS, FOLDERS, FORMATS, NAMES, REFUSED_NAMES
from tests.reliability.deaths import PREDICT_DIES, SCORES_DIE, SPLIT_DIES, TRAIN_DIES
from tests.reliability.forms_table import FORMS
from tests.reliability.test_geometry import SPACINGS, TURNS
from tests.reliability.test_long_run import CASES


class Count(NamedTuple):
    """Of a kind of fault, what is tried, and how many cases of it."""

    kind: str
    what: str
    cases: int


def tests_of(module: ModuleType) -> int:
    """The tests of a module, one for each of their parameters."""
    tests = [test for name, test in vars(module).items() if name.startswith("test_") and callable(test)]
    return sum(
        prod(len(mark.args[1]) for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize")
        for test in tests
    )


COUNTS = [
    Count("files", f"files of {len(FORMATS)} kinds, each cut at {len(CUTS)} places", len(FORMATS) * len(CUTS)),
    Count("files", f"the same with flipped bytes, {len(FLIPS)} times each", len(FORMATS) * len(FLIPS)),
    Count("files", "bad or odd headers, values, places, lists and series", len(ROWS)),
    Count("files", "bombs: little that claims or unpacks to much", len(BOMBS)),
    Count("files", "names of any signs, folders named as images", len(NAMES) + len(FOLDERS) + len(REFUSED_NAMES)),
    Count(
        "geometry",
        f"{len(ORIENTATIONS)} orientations, straight and oblique, isotropic and anisotropic",
        len(ORIENTATIONS) * len(SPACINGS) * len(TURNS),
    ),
    Count("geometry", "sform and qform that agree, disagree or are missing", len(FORMS)),
    Count("processes", "`kill -9` in `predict`", len(PREDICT_DIES) + len(SPLIT_DIES) + len(SCORES_DIE)),
    Count("processes", "`kill -9` in `train`", len(TRAIN_DIES)),
    Count(
        "processes",
        "writes and allocations that are refused, read-only directories, workers that die",
        tests_of(test_shortages),
    ),
    Count("concurrency", "two runs on one folder at the same time", tests_of(test_concurrency)),
    Count("long run", "cases in one process, with no growth in memory or open files", CASES),
    Count(
        "properties",
        "examples of volumes, windows and upsampling that hypothesis looks for",
        tests_of(test_properties) * test_properties.few.max_examples,
    ),
]


def table() -> str:
    """The counts as the page shows them."""
    rows = [("kind", "what is tried", "cases"), ("---", "---", "---:")]
    rows += [(count.kind, count.what, str(count.cases)) for count in COUNTS]
    rows.append(("**all**", "", f"**{sum(count.cases for count in COUNTS)}**"))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
