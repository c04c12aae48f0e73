"""Where DICOM files lie, told by their names and first bytes alone."""

import os
import re
import struct
from pathlib import Path

SEGMENTATION = ".seg.dcm"  # what a run writes, perhaps into a folder among its scans
_SUFFIXES = (".dcm", ".dicom", ".ima")
_PREAMBLE = 132  # bytes: 128 of anything, then "DICM" (PS3.10, 7.1)
_HEAD = 8192  # bytes: more than the file meta information and the elements up to SOPClassUID take
_META, _IDENTIFYING = 0x0002, 0x0008  # groups: file meta information, and the first one of a data set
_LONG_FORM = (b"OB", b"OW", b"SQ", b"UN", b"UT")  # value representations whose length takes four bytes
_VR = re.compile(rb"A[EST]|CS|D[AST]|FD|FL|IS|L[OT]|O[BW]|PN|S[HLQST]|TM|U[ILNST]")
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")
SOP_CLASS, TRANSFER_SYNTAX = (0x00020002, 0x00080016), 0x00020010  # tags; the first in the meta information or after it
_OTHERS = (
    *(".nii", ".gz", ".hdr", ".img", ".mha", ".mhd", ".raw", ".zraw", ".nrrd", ".nhdr", ".png", ".tif", ".tiff"),
    *(".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".txt", ".md", ".csv", ".tsv", ".json"),
)
_INDEX = "dicomdir"  # DICOM itself, but no image


def is_dicom(file: Path) -> bool:
    """Whether a file is DICOM by its name (.dcm, .dicom, .ima), or by its first bytes where the name says nothing.

    A segmentation that a run wrote (.seg.dcm) counts for none: a folder of such holds no image.

    >>> is_dicom(Path("IM0001.dcm")), is_dicom(Path("ct.nii.gz")), is_dicom(Path("ct.seg.dcm"))
    (True, False, False)
    """
    name = file.name.lower()
    if name.endswith(_SUFFIXES):
        return not name.endswith(SEGMENTATION)
    return not name.endswith(_OTHERS) and name != _INDEX and file.is_file() and has_mark(file)


def contains_dicom(folder: Path) -> bool:
    """Whether a folder itself, not one in it, holds DICOM; hidden files are passed over."""
    return any(is_dicom(file) for file in sorted(folder.iterdir()) if not file.name.startswith(".") and file.is_file())


def leads_to_dicom(folder: Path) -> bool:
    """Whether a folder, or one at any depth in it, holds DICOM; hidden ones are passed over.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     (Path(folder) / "visit" / "ct").mkdir(parents=True)
    ...     (Path(folder) / "visit" / "ct" / "1.dcm").touch()
    ...     contains_dicom(Path(folder)), leads_to_dicom(Path(folder))
    (False, True)
    """
    inner = (Path(root) for root, _, _ in os.walk(folder))
    return any(contains_dicom(sub) for sub in inner if not _is_hidden(sub.relative_to(folder)))


def has_mark(file: Path) -> bool:
    """Whether a file begins as DICOM: with a preamble of 128 bytes and "DICM", or with elements that name its class.

    Files without preamble and "DICM" are read by most programs, and written by some archives and anonymizers.

    >>> has_mark(Path(__file__)), has_mark(Path("absent.dcm"))
    (False, False)
    """
    try:
        with file.open("rb") as stream:
            head = stream.read(_PREAMBLE)
    except OSError:  # unreadable: whoever lists it as something else says so
        return False
    return head[128:] == b"DICM" or bool(_starts_a_data_set(head) and sop_class(read_head(file)))


def read_head(file: Path) -> dict[int, str]:
    """Text of the elements of groups 2 and 8 at the start of a DICOM file, by tag; empty of other files.

    The meta information (group 2) is explicit and little endian always; a data set in big endian is not looked at.

    >>> read_head(Path(__file__))
    {}
    """
    with file.open("rb") as stream:
        head = stream.read(_HEAD)
    found: dict[int, str] = {}
    at, last = _PREAMBLE if head[128:_PREAMBLE] == b"DICM" else 0, 0
    while at + 12 <= len(head):
        group, element, kind, short = struct.unpack_from("<HH2sH", head, at)
        tag = group << 16 | element
        if group not in (_META, _IDENTIFYING) or tag < last:
            break
        length, start = struct.unpack_from("<I", head, at + 4)[0], at + 8  # implicit
        if _VR.fullmatch(kind):
            length, start = (
                (struct.unpack_from("<I", head, at + 8)[0], at + 12) if kind in _LONG_FORM else (short, start)
            )
        at, last = start + length, tag
        if at <= len(head):  # a value that is cut off says nothing
            found[tag] = head[start:at].decode("latin-1").strip("\0 ")
    return found


def sop_class(head: dict[int, str]) -> str:
    """The UID that says what a DICOM file holds, of what `read_head` reads; empty where it says nothing.

    >>> sop_class({0x00080016: "1.2.840.10008.5.1.4.1.1.2"})
    '1.2.840.10008.5.1.4.1.1.2'
    """
    return next((head[tag] for tag in SOP_CLASS if _UID.fullmatch(head.get(tag, ""))), "")


def _starts_a_data_set(head: bytes) -> bool:
    return head[:2] in (b"\x02\0", b"\x08\0")


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
