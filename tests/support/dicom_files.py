"""DICOM files written byte by byte (explicit, little endian; PS3.5, 7.1), so that a test says every tag itself.

ITK's writer takes spacing, slopes and instance UIDs into its own hands; a reader tested on its files alone would
know only such ones.
"""

import struct
from pathlib import Path
from typing import Any

import numpy as np

CT, MR, PET, CAPTURE, REPORT = (f"1.2.840.10008.5.1.4.1.1.{kind}" for kind in ("2", "4", "128", "7", "88.11"))
ELEMENTS = {
    "MediaStorageSOPClassUID": (0x0002, 0x0002, "UI"),
    "MediaStorageSOPInstanceUID": (0x0002, 0x0003, "UI"),
    "TransferSyntaxUID": (0x0002, 0x0010, "UI"),
    "SpecificCharacterSet": (0x0008, 0x0005, "CS"),
    "ImageType": (0x0008, 0x0008, "CS"),
    "SOPClassUID": (0x0008, 0x0016, "UI"),
    "SOPInstanceUID": (0x0008, 0x0018, "UI"),
    "AcquisitionTime": (0x0008, 0x0032, "TM"),
    "Modality": (0x0008, 0x0060, "CS"),
    "SeriesDescription": (0x0008, 0x103E, "LO"),
    "ComplexImageComponent": (0x0008, 0x9208, "CS"),
    "PatientName": (0x0010, 0x0010, "PN"),
    "PatientID": (0x0010, 0x0020, "LO"),
    "PatientBirthDate": (0x0010, 0x0030, "DA"),
    "PatientSex": (0x0010, 0x0040, "CS"),
    "SliceThickness": (0x0018, 0x0050, "DS"),
    "KVP": (0x0018, 0x0060, "DS"),
    "EchoTime": (0x0018, 0x0081, "DS"),
    "EchoNumbers": (0x0018, 0x0086, "IS"),
    "ConvolutionKernel": (0x0018, 0x1210, "SH"),
    "DiffusionBValue": (0x0018, 0x9087, "FD"),
    "StudyInstanceUID": (0x0020, 0x000D, "UI"),
    "SeriesInstanceUID": (0x0020, 0x000E, "UI"),
    "SeriesNumber": (0x0020, 0x0011, "IS"),
    "AcquisitionNumber": (0x0020, 0x0012, "IS"),
    "InstanceNumber": (0x0020, 0x0013, "IS"),
    "ImagePositionPatient": (0x0020, 0x0032, "DS"),
    "ImageOrientationPatient": (0x0020, 0x0037, "DS"),
    "FrameOfReferenceUID": (0x0020, 0x0052, "UI"),
    "TemporalPositionIdentifier": (0x0020, 0x0100, "IS"),
    "SamplesPerPixel": (0x0028, 0x0002, "US"),
    "PhotometricInterpretation": (0x0028, 0x0004, "CS"),
    "PlanarConfiguration": (0x0028, 0x0006, "US"),
    "NumberOfFrames": (0x0028, 0x0008, "IS"),
    "Rows": (0x0028, 0x0010, "US"),
    "Columns": (0x0028, 0x0011, "US"),
    "PixelSpacing": (0x0028, 0x0030, "DS"),
    "BitsAllocated": (0x0028, 0x0100, "US"),
    "BitsStored": (0x0028, 0x0101, "US"),
    "HighBit": (0x0028, 0x0102, "US"),
    "PixelRepresentation": (0x0028, 0x0103, "US"),
    "RescaleIntercept": (0x0028, 0x1052, "DS"),
    "RescaleSlope": (0x0028, 0x1053, "DS"),
    "RescaleType": (0x0028, 0x1054, "LO"),
    "PixelData": (0x7FE0, 0x0010, "OW"),
}
_NUMBERS = {"US": "<H", "FD": "<d"}
PLAIN = {
    "ImageType": ("ORIGINAL", "PRIMARY", "AXIAL"),
    "SOPClassUID": CT,
    "SOPInstanceUID": "1.2.3.4.5",
    "Modality": "CT",
    "SeriesDescription": "Abdomen 5.0",
    "StudyInstanceUID": "1.2.3",
    "SeriesInstanceUID": "1.2.3.4",
    "SeriesNumber": 2,
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "BitsAllocated": 16,
    "BitsStored": 16,
    "HighBit": 15,
    "PixelRepresentation": 1,
    "RescaleIntercept": 0,
    "RescaleSlope": 1,
}
TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def write_slice(path: Path, stored: np.ndarray, **tags: Any) -> Path:
    """Write stored values (rows, columns) with `PLAIN` tags and `tags`; None leaves a tag out."""
    rows, columns = stored.shape[-2:]
    pixels = {"Rows": rows, "Columns": columns, "PixelData": stored.astype("<i2").tobytes()}
    tags = {**PLAIN, **pixels, **tags}
    meta = {
        "MediaStorageSOPClassUID": tags["SOPClassUID"],
        "MediaStorageSOPInstanceUID": tags["SOPInstanceUID"],
        "TransferSyntaxUID": tags.pop("TransferSyntaxUID", "1.2.840.10008.1.2.1"),
    }
    head, body = (b"".join(element(*item) for item in sorted(part.items(), key=tag_order)) for part in (meta, tags))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(128) + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(head)) + head + body)
    return path


def tag_order(item: tuple[str, Any]) -> tuple[int, int, str]:
    return ELEMENTS[item[0]]


def element(keyword: str, value: Any) -> bytes:
    if value is None:
        return b""
    group, number, kind = ELEMENTS[keyword]
    numbers = {"US": "<H", "FD": "<d"}
    content = (
        struct.pack(numbers[kind], value) if kind in numbers else value if isinstance(value, bytes) else text(value)
    )
    content += (b"\0" if kind in ("UI", "OW") else b" ") * (len(content) % 2)
    length = struct.pack("<HI", 0, len(content)) if kind == "OW" else struct.pack("<H", len(content))
    return struct.pack("<HH", group, number) + kind.encode() + length + content


def text(value: Any) -> bytes:
    values = value if isinstance(value, tuple | list | np.ndarray) else [value]
    return "\\".join(f"{v:.10g}" if isinstance(v, float) else str(v) for v in values).encode("utf-8")


def place(affine: np.ndarray, k: int) -> dict[str, Any]:
    """Tags that put slice `k` of voxels (X, Y, Z) where a NIfTI affine (RAS+) has it."""
    lps = TO_LPS @ affine
    spacing = np.linalg.norm(lps[:3, :2], axis=0)
    along_columns, along_rows = (lps[:3, :2] / spacing).T
    return {
        "ImagePositionPatient": (lps @ [0, 0, k, 1])[:3],
        "ImageOrientationPatient": [*along_columns, *along_rows],
        "PixelSpacing": spacing[::-1],
    }


def write_series(folder: Path, voxels: np.ndarray, affine: np.ndarray, **tags: Any) -> list[Path]:
    """Write voxels (X, Y, Z) whose affine is RAS+, a file a slice, lowest first; a list is a value a slice."""
    files = []
    for k in range(voxels.shape[2]):
        own = {keyword: value[k] if isinstance(value, list) else value for keyword, value in tags.items()}
        stored = (voxels[:, :, k].T - own.get("RescaleIntercept", 0)) / own.get("RescaleSlope", 1)
        own = {**place(affine, k), "InstanceNumber": k + 1, **own}
        files.append(write_slice(folder / f"IM{k:04}", stored, **own))
    return files
