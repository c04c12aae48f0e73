"""Names and colours of labels: in the label map, in tables beside it, in pictures and reports."""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from colorsys import hsv_to_rgb
from io import StringIO
from typing import Any, NamedTuple
from xml.etree import ElementTree as Xml

from nibabel.nifti1 import Nifti1Extension, Nifti1Pair

# The colour of a class: the same in pictures, in files and in pages.


# 1-7: Okabe and Ito, Color Universal Design (2008), made for colour-blind readers, without their black.
# 8-20: Tol, Introduction to Colour Schemes (2021), "light" and "muted" without what drowns on a dark ground.
_COLORS = tuple(
    bytes.fromhex(
        "E69F00 56B4E9 009E73 F0E442 0072B2 D55E00 CC79A7"
        " 99DDFF EE8866 44BB99 FFAABB BBCC33 77AADD EEDD88 AAAA00 CC6677 882255 999933 AA4499 DDDDDD"
    )[i : i + 3]
    for i in range(0, 60, 3)
)
_GOLDEN_RATIO = 0.618034


def palette(label: int) -> tuple[int, int, int]:
    """Red, green and blue (0 to 255) of a label id.

    Ids 1 to 20 are told apart on a dark ground, 1 to 7 by colour-blind readers too; beyond, hues are spread
    by the golden ratio.

    Raises:
        ValueError: `label` is below 1; the background has no colour.

    >>> palette(1)
    (230, 159, 0)
    """
    if label < 1:
        raise ValueError(f"got label {label}; ids from 1 have a colour: leave the background out")
    if label <= len(_COLORS):
        red, green, blue = _COLORS[label - 1]
        return red, green, blue
    hue, saturation = label * _GOLDEN_RATIO % 1, 0.55 + 0.3 * (label % 2)
    red, green, blue = (round(255 * part) for part in hsv_to_rgb(hue, saturation, 0.95))
    return red, green, blue


def hex_color(label: int) -> str:
    """The same as `#rrggbb`.

    >>> hex_color(1)
    '#e69f00'
    """
    return "#" + bytes(palette(label)).hex()


# Names and colours of labels, in the label map itself and in the tables beside it.
#
# In a NIfTI they are Caret's XML in the first extension, with code 0, as TotalSegmentator writes and reads it.
# NIfTI's own code for it is 30, but nibabel from 5.3 on raises NotImplementedError when the content of such an
# extension is read by `get_content()`. 3D Slicer and ITK-SNAP keep names in tables of their own.

_CODE = 0  # NIfTI's: anybody's
_HEAD, _STEP = 8, 16  # bytes before an extension's content, and what its length is a multiple of
_BACKGROUND = "background"
_BLACK = 0, 0, 0
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, section 2.2


class Label(NamedTuple):
    """What a label id means, and how it is shown."""

    name: str
    color: tuple[int, int, int]  # red, green, blue, 0 to 255


def label_table(names: Mapping[int, str]) -> dict[int, Label]:
    """Label id -> name and colour, by id; the background is black, and is there whether it is named or not.

    >>> label_table({1: "liver"})
    {0: Label(name='background', color=(0, 0, 0)), 1: Label(name='liver', color=(230, 159, 0))}
    """
    table = {label: Label(name, palette(label)) for label, name in sorted(names.items()) if label}
    return {0: Label(names.get(0, _BACKGROUND), _BLACK)} | table


def mask_table(label: int, name: str) -> dict[int, Label]:
    """The table of one class's mask: 1 has the class's name and the colour of its id.

    >>> mask_table(2, "spleen")[1]
    Label(name='spleen', color=(86, 180, 233))
    """
    return label_table({}) | {1: Label(name, palette(label))}


def table_extensions(tables: Sequence[Mapping[int, Label]]) -> list[Nifti1Extension]:
    """Return the header extension that says what the values mean, in a list: one table for each volume of the file.

    Args:
        tables: one of a label map, as `label_table` makes it; of 4-D masks one for each channel, as `mask_table` does.

    >>> [extension.get_code() for extension in table_extensions([label_table({1: "liver"})])]
    [0]
    """
    root = Xml.Element("CaretExtension")
    for index, table in enumerate(tables):
        volume = Xml.SubElement(root, "VolumeInformation", Index=str(index))
        rows = Xml.SubElement(volume, "LabelTable")
        for key, label in table.items():
            _add_label(rows, key, label)
        Xml.SubElement(volume, "VolumeType").text = "Label"
    text = Xml.tostring(root, "UTF-8", xml_declaration=True)
    padding = b"\n" * (-(_HEAD + len(text)) % _STEP)  # else nibabel pads with zeros, which XML forbids
    return [Nifti1Extension(_CODE, text + padding)]


def read_label_tables(image: Nifti1Pair) -> list[dict[int, Label]]:
    """The tables of a header, one for each volume that has one; none where nothing of the kind is there.

    Any extension that holds such XML is read, whatever its code.

    >>> import nibabel as nib
    >>> import numpy as np
    >>> image = nib.Nifti1Image(np.zeros((2, 3, 4), np.uint8), np.eye(4))
    >>> image.header.extensions.extend(table_extensions([label_table({1: "liver"})]))
    >>> [{label: name for label, (name, _) in table.items()} for table in read_label_tables(image)]
    [{0: 'background', 1: 'liver'}]
    """
    for extension in image.header.extensions:
        if tables := _parse(extension.content):
            return tables
    return []


def sidecar_labels(table: Mapping[int, Label]) -> dict[str, Any]:
    """The part of a JSON sidecar that names the labels, for a label map's `table`; the background is left out.

    >>> sidecar_labels(label_table({1: "liver"}))
    {'labels': {'1': {'name': 'liver', 'color': [230, 159, 0]}}}
    """
    rows = {str(key): {"name": name, "color": list(color)} for key, (name, color) in table.items() if key}
    return {"labels": rows}


def dseg_table(table: Mapping[int, Label]) -> str:
    """The text of a BIDS `dseg.tsv`: columns index, name and color (BIDS 1.10, derivatives, image-derived labels).

    >>> print(dseg_table(label_table({1: "liver"})).replace("\\t", " | "), end="")
    index | name | color
    0 | background | #000000
    1 | liver | #e69f00
    """
    text = StringIO()
    rows = [(key, name, f"#{bytes(color).hex()}") for key, (name, color) in table.items()]
    csv.writer(text, "excel-tab", lineterminator="\n").writerows([("index", "name", "color"), *rows])
    return text.getvalue()


def _add_label(rows: Xml.Element, key: int, label: Label) -> None:
    red, green, blue = (f"{part / 255:.6g}" for part in label.color)
    alpha = "1" if key else "0"  # the background is not drawn
    row = Xml.SubElement(rows, "Label", Key=str(key), Red=red, Green=green, Blue=blue, Alpha=alpha)
    row.text = _NO_XML.sub("\ufffd", label.name)


def _parse(content: bytes) -> list[dict[int, Label]]:
    try:
        root = Xml.fromstring(content.strip(b"\0 \n"))
        return [dict(_labels(volume)) for volume in root.iterfind("VolumeInformation[LabelTable]")]
    except (Xml.ParseError, ValueError):  # somebody else's extension
        return []


def _labels(volume: Xml.Element) -> Iterator[tuple[int, Label]]:
    for row in volume.iterfind("LabelTable/Label"):
        red, green, blue = (round(255 * float(row.get(part, "0"))) for part in ("Red", "Green", "Blue"))
        yield int(row.get("Key", "")), Label(row.text or "", (red, green, blue))
