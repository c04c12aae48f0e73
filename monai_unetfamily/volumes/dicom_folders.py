"""Where DICOM files lie, told by their names and first bytes alone."""

import os
from pathlib import Path

SEGMENTATION = ".seg.dcm"  # what a run writes, perhaps into a folder among its scans
_SUFFIXES = (".dcm", ".dicom", ".ima")
_MAGIC = (128, b"DICM")  # DICOM part 10: after a preamble of 128 bytes
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


def holds_dicom(folder: Path) -> bool:
    """Whether a folder itself, not one in it, holds DICOM; hidden files are passed over."""
    return any(is_dicom(file) for file in sorted(folder.iterdir()) if not file.name.startswith(".") and file.is_file())


def leads_to_dicom(folder: Path) -> bool:
    """Whether a folder, or one at any depth in it, holds DICOM; hidden ones are passed over.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     (Path(folder) / "visit" / "ct").mkdir(parents=True)
    ...     (Path(folder) / "visit" / "ct" / "1.dcm").touch()
    ...     holds_dicom(Path(folder)), leads_to_dicom(Path(folder))
    (False, True)
    """
    inner = (Path(root) for root, _, _ in os.walk(folder))
    return any(holds_dicom(sub) for sub in inner if not _is_hidden(sub.relative_to(folder)))


def has_mark(file: Path) -> bool:
    """Whether a file has DICOM's mark (part 10): "DICM" after a preamble of 128 bytes.

    >>> has_mark(Path(__file__)), has_mark(Path("absent.dcm"))
    (False, False)
    """
    start, magic = _MAGIC
    try:
        with file.open("rb") as stream:
            return stream.read(start + len(magic))[start:] == magic
    except OSError:  # unreadable: whoever lists it as something else says so
        return False


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
