"""A fingerprint: facts, what is derived from them, JSON and back, a table."""

import json
from dataclasses import replace

import pytest

from monai_unetfamily.planning.fingerprint import CaseFacts, Fingerprint, Intensity, format_fingerprint

INTENSITY = Intensity(p00_5=-60.0, p01=-40.0, p50=50.0, p99=150.0, p99_5=180.0, mean=48.5, std=30.25)


def facts(name: str, spacing: tuple[float, ...], size: tuple[int, ...], liver: float = 1500.0) -> CaseFacts:
    return CaseFacts(
        name=name,
        size=size,
        spacing=spacing,
        orientation="LPS",
        dtype="int16",
        label_dtype="uint8",
        volumes_ml={"liver": liver, "kidney_left": 0.0, "kidney_right": 150.0},
        extent_mm=(200.0, 180.0, 150.0),
        ranges=((-1024.0, 3071.0),),
        intensity=(INTENSITY,),
    )


ABDOMEN = Fingerprint(
    name="Abdomen",
    modality="CT",
    channels=("CT",),
    labels={0: "background", 1: "liver", 2: "kidney_left", 3: "kidney_right"},
    ignore=255,
    layout="nnU-Net",
    overlapping=False,
    cases=(
        facts("a", (0.5, 0.5, 5.0), (512, 512, 100)),
        facts("b", (0.75, 0.75, 2.0), (512, 512, 200), liver=0.0),
        facts("c", (1.0, 1.0, 1.0), (256, 300, 400)),
    ),
    pooled=(INTENSITY,),
)


def test_json_and_back_is_the_same() -> None:
    assert Fingerprint.from_json(ABDOMEN.to_json()) == ABDOMEN
    assert json.loads(ABDOMEN.to_json())["labels"]["2"] == "kidney_left"


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "[]",
        "{}",
        json.dumps(json.loads(ABDOMEN.to_json()) | {"cases": [{"name": "a"}]}),
        json.dumps(json.loads(ABDOMEN.to_json()) | {"pooled": [{"p50": 1}]}),
        json.dumps(json.loads(ABDOMEN.to_json()) | {"labels": {"liver": "1"}}),
    ],
)
def test_what_is_no_fingerprint_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="got no fingerprint"):
        Fingerprint.from_json(text)


def test_spacing_and_size_by_percentile_and_axis() -> None:
    assert ABDOMEN.spacing() == (0.75, 0.75, 2.0)
    assert ABDOMEN.spacing(0) == (0.5, 0.5, 1.0)
    assert ABDOMEN.spacing(25) == (0.625, 0.625, 1.5)
    assert ABDOMEN.size() == (512, 512, 200)
    assert ABDOMEN.size(100, spacing=(1.0, 1.0, 2.0)) == (384, 384, 250)
    assert ABDOMEN.spatial_dims == 3


def test_absences_and_sides() -> None:
    assert ABDOMEN.classes == ("liver", "kidney_left", "kidney_right")
    assert ABDOMEN.absent_from_case == {"liver": 1 / 3, "kidney_left": 1.0, "kidney_right": 0.0}
    assert ABDOMEN.paired_sides == [("kidney_left", "kidney_right")]


def test_intensity_needs_foreground() -> None:
    assert ABDOMEN.intensity().p50 == 50
    empty = replace(ABDOMEN, pooled=())
    assert Fingerprint.from_json(empty.to_json()) == empty
    with pytest.raises(ValueError, match="Abdomen: no case has foreground"):
        empty.intensity()


def test_the_table_reads() -> None:
    text = format_fingerprint(ABDOMEN)
    assert text.startswith("Abdomen: 3 volumes of CT (nnU-Net), channels: CT\n")
    assert "0.75 x 0.75 x 2 |" in text
    assert "512 x 512 x 200 |" in text
    rows = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]]
        for line in text.splitlines()[1:]
        if line
    }
    assert rows["liver"] == ["1500", "1500", "1500", "33.3%"]
    assert rows["kidney_left"] == ["-", "-", "-", "100.0%"]
    assert rows["CT"] == ["-60", "-40", "50", "150", "180", "48.5", "30.25"]
