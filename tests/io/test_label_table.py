"""Laws of names and colours in files: they come back, they move no voxel, and others' readers understand them."""

import csv
import json
from pathlib import Path
from xml.etree import ElementTree

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from monai_unetfamily.io import (
    Label,
    dseg_table,
    label_table,
    mask_table,
    open_volume,
    palette,
    read_channel_names,
    read_label_tables,
    save_image,
    score_file,
    sidecar_labels,
    table_extensions,
    write_labels,
    write_masks,
    write_separate_masks,
)

NAMES = {0: "background", 1: "liver", 2: 'a "b" <c> & ]]> é 肝', 7: " spaced, name ", 300: "last"}
AFFINE = np.array([[-0.7, 0.1, 0, 100 / 3], [0.1, 0.7, 0.3, -57.7], [0, -0.2, 5, 1e3], [0, 0, 0, 1]])


def source(kind: type[nib.Nifti1Image] = nib.Nifti1Image) -> nib.Nifti1Image:
    image = kind(np.zeros((4, 5, 6), np.int16), AFFINE)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"patient's name"))
    image.header.set_intent("t test", (3,), "of the scan")
    return image


@pytest.mark.parametrize("names", [NAMES, {1: "nodule"}, dict(enumerate(map(str, range(106))))], ids=len)
def test_a_table_returns_from_a_header(names: dict[int, str]) -> None:
    image = source()
    image.header.extensions.extend(table_extensions([label_table(names)]))
    assert read_label_tables(image) == [label_table(names)]
    assert {label: name for label, (name, _) in label_table(names).items()} == {0: "background"} | names
    assert all(color == palette(label) for label, (_, color) in label_table(names).items() if label)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_table_moves_no_voxel_and_changes_no_geometry(kind: type, suffix: str, tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 300, (4, 5, 6))
    plain, named = tmp_path / f"plain{suffix}", tmp_path / f"named{suffix}"
    write_labels(labels, source(kind), plain)
    write_labels(labels, source(kind), named, label_table(NAMES))
    before, after = nib.load(plain), nib.load(named)
    np.testing.assert_array_equal(np.asarray(after.dataobj), labels)
    assert type(after) is kind
    differing = {key for key in before.header if before.header[key].tobytes() != after.header[key].tobytes()}
    assert differing <= {"intent_code", "intent_p1", "intent_name", "vox_offset"}
    assert after.header.get_intent() == ("label", (), "")
    assert (len(before.header.extensions), len(after.header.extensions)) == (0, 1)  # none of the patient
    assert read_label_tables(open_volume(named)) == [label_table(NAMES)]


def test_nibabel_gives_the_content_of_every_extension_that_is_written(tmp_path: Path) -> None:
    """Its `get_content()` raises NotImplementedError for some codes, Caret's 30 among them, once they are loaded."""
    write_labels(np.zeros((4, 5, 6), int), source(), tmp_path / "labels.nii.gz", label_table(NAMES))
    write_masks(np.zeros((4, 5, 6, 2), int), {1: "liver", 2: "lesion"}, source(), tmp_path / "masks.nii.gz")
    with score_file(tmp_path / "scores.nii", source(), NAMES):
        pass
    for name, codes in (("labels.nii.gz", [0]), ("masks.nii.gz", [0, 6]), ("scores.nii", [6])):
        extensions = nib.load(tmp_path / name).header.extensions
        assert extensions.get_codes() == codes
        assert all(extension.get_content() == extension.content for extension in extensions)


def test_itk_reads_the_same_voxels_on_the_same_grid(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 300, (4, 5, 6))
    straight = nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.diag([2.0, 2.0, 5.0, 1.0]))
    write_labels(labels, straight, tmp_path / "plain.nii.gz")
    write_labels(labels, straight, tmp_path / "named.nii.gz", label_table(NAMES))
    plain, named = (sitk.ReadImage(tmp_path / f"{name}.nii.gz") for name in ("plain", "named"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(named).T, labels)
    assert named.GetPixelID() == plain.GetPixelID()
    for part in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(named, part)() == getattr(plain, part)()


def test_the_xml_is_what_totalsegmentator_parses() -> None:
    """It takes the first extension, and many labels."""
    [first] = table_extensions([label_table({1: "liver"})])
    content = first.get_content()
    assert first.get_code() == 0
    assert first.get_sizeondisk() == 8 + len(content)  # no zero bytes, which XML forbids
    root = ElementTree.fromstring(content)
    assert root.tag == "CaretExtension"
    [volume] = root
    assert (volume.tag, volume.attrib) == ("VolumeInformation", {"Index": "0"})
    assert [part.tag for part in volume] == ["LabelTable", "VolumeType"]
    assert volume.findtext("VolumeType") == "Label"
    background, liver = volume.findall("LabelTable/Label")
    assert (background.get("Key"), background.get("Alpha")) == ("0", "0")
    assert liver.attrib == {"Key": "1", "Red": "0.901961", "Green": "0.623529", "Blue": "0", "Alpha": "1"}
    assert liver.text == "liver"


def test_what_xml_forbids_in_a_name_is_replaced() -> None:
    image = source()
    image.header.extensions.extend(table_extensions([label_table({1: "a\x00b\x1b\ud800c"})]))
    assert read_label_tables(image)[0][1].name == "a�b��c"


def test_a_table_written_by_others_is_read() -> None:
    """As TotalSegmentator writes it: code 0, character data sections, blanks around."""
    text = (
        b'<?xml version="1.0" encoding="UTF-8"?> <CaretExtension>  <Date><![CDATA[2013-07-14T05:45:09]]></Date>'
        b'<VolumeInformation Index="0">   <LabelTable>\n<Label Key="1" Red="1.0" Green="0.5019607843137255" Blue="0.0"'
        b' Alpha="1"><![CDATA[spleen]]></Label>\n  </LabelTable>  <StudyMetaDataLinkSet>  </StudyMetaDataLinkSet>'
        b"<VolumeType><![CDATA[Label]]></VolumeType></VolumeInformation></CaretExtension>\n    "
    )
    image = source()
    image.header.extensions.append(nib.nifti1.Nifti1Extension(0, text))
    assert read_label_tables(image) == [{1: Label("spleen", (255, 128, 0))}]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe junk",
        b"<CaretExtension>",
        b"<other/>",
        b'<C><VolumeInformation><LabelTable><Label Key="x"/></LabelTable></VolumeInformation></C>',
        b'<!DOCTYPE a [<!ENTITY b "c">]><CaretExtension>&d;</CaretExtension>',
    ],
)
def test_other_extensions_are_passed_over(content: bytes) -> None:
    image = source()
    image.header.extensions.append(nib.nifti1.Nifti1Extension(30, content))
    assert read_label_tables(image) == []
    image.header.extensions.extend(table_extensions([label_table(NAMES)]))
    assert read_label_tables(image) == [label_table(NAMES)]


def test_masks_have_a_table_for_each_channel(tmp_path: Path) -> None:
    names = {1: "tumour", 2: "core"}
    write_masks(np.ones((4, 5, 6, 2), int), names, source(), tmp_path / "a.nii.gz")
    image = open_volume(tmp_path / "a.nii.gz", channels=True)
    assert read_label_tables(image) == [mask_table(1, "tumour"), mask_table(2, "core")]
    assert [table[1].color for table in read_label_tables(image)] == [palette(1), palette(2)]
    assert read_channel_names(image) == names


def test_split_masks_keep_their_class_and_colour(tmp_path: Path) -> None:
    write_separate_masks(np.full((4, 5, 6), 2), {0: "background", 1: "liver", 2: "spleen"}, source(), tmp_path / "case")
    [table] = read_label_tables(open_volume(tmp_path / "case" / "spleen.nii.gz"))
    assert table[1] == Label("spleen", palette(2))


def test_equal_label_maps_are_equal_bytes(tmp_path: Path) -> None:
    for name in "ab":
        write_labels(np.ones((4, 5, 6), int), source(), tmp_path / f"{name}.nii.gz", label_table(NAMES))
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_sidecar_and_dseg_table_say_the_same() -> None:
    table = label_table(NAMES | {9: 'tab\tand "quote"'})
    sidecar = json.loads(json.dumps(sidecar_labels(table)))["labels"]
    rows = list(csv.DictReader(dseg_table(table).splitlines(), dialect="excel-tab"))
    assert list(rows[0]) == ["index", "name", "color"]
    assert {int(row["index"]): row["name"] for row in rows} == {label: name for label, (name, _) in table.items()}
    for row in rows[1:]:
        entry = sidecar[row["index"]]
        assert (entry["name"], "#{:02x}{:02x}{:02x}".format(*entry["color"])) == (row["name"], row["color"])


def test_a_file_without_extensions_has_no_table(tmp_path: Path) -> None:
    save_image(nib.Nifti1Image(np.zeros((2, 3, 4), np.uint8), np.eye(4)), tmp_path / "a.nii")
    assert read_label_tables(open_volume(tmp_path / "a.nii")) == []
