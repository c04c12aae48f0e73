"""The tables of damaged files: each format, cut at every kind of place, with flipped bytes; names; bombs."""

import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from PIL import Image

from tests.reliability.bad_inputs import AFFINE, VOXELS, content, itk, packed, picture, series

GREY = ((VOXELS[..., 0] + 1000) // 8).astype(np.uint8)  # a picture as the bundle for pictures takes it


class Format(NamedTuple):
    """How a whole image is made in a folder, which is returned, and which of its files is damaged."""

    make: Callable[[Path], Path]
    damaged: str
    flat: bool = False  # a picture


def nifti(name: str, kind: type[nib.Nifti1Pair] = nib.Nifti1Image) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        nib.save(kind(VOXELS, AFFINE), folder / name)
        return folder / name

    return make


def tiff(path: Path, compression: str) -> Path:
    Image.fromarray(GREY).save(path, compression=compression)
    return path


FORMATS = {
    "NIfTI": Format(nifti("a.nii"), "a.nii"),
    "NIfTI, gzip": Format(nifti("a.nii.gz"), "a.nii.gz"),
    "NIfTI-2": Format(nifti("a.nii", nib.Nifti2Image), "a.nii"),
    "NIfTI pair, header": Format(nifti("a.hdr", nib.Nifti1Pair), "a.hdr"),
    "NIfTI pair, voxels": Format(nifti("a.hdr", nib.Nifti1Pair), "a.img"),
    "MetaImage": Format(lambda d: itk(d / "a.mha"), "a.mha"),
    "MetaImage, packed": Format(lambda d: packed(d / "a.mha"), "a.mha"),
    "MetaImage pair, header": Format(lambda d: itk(d / "a.mhd"), "a.mhd"),
    "MetaImage pair, voxels": Format(lambda d: itk(d / "a.mhd"), "a.raw"),
    "NRRD": Format(lambda d: itk(d / "a.nrrd"), "a.nrrd"),
    "NRRD, packed": Format(lambda d: packed(d / "a.nrrd"), "a.nrrd"),
    "DICOM": Format(lambda d: series(d / "a"), "a/IM0002"),
    "PNG": Format(lambda d: picture(d / "a.png", GREY), "a.png", flat=True),
    "TIFF": Format(lambda d: tiff(d / "a.tif", "raw"), "a.tif", flat=True),
    "TIFF, packed": Format(lambda d: tiff(d / "a.tif", "tiff_deflate"), "a.tif", flat=True),
}
CHECKED = ("NIfTI, gzip", "PNG")  # formats with a checksum: no flipped byte goes unseen

# Bytes that are kept of n: none, in the magic, in the header, between header and voxels, in the voxels, at the end.
CUTS: dict[str, Callable[[int], int]] = {
    "nothing": lambda n: 0,
    "a byte": lambda n: 1,
    "the magic": lambda n: 4,
    "ten bytes": lambda n: 10,
    "a sixteenth": lambda n: n // 16,
    "an eighth": lambda n: n // 8,
    "a quarter": lambda n: n // 4,
    "half": lambda n: n // 2,
    "three quarters": lambda n: 3 * n // 4,
    "all but nine bytes": lambda n: n - 9,
    "all but four": lambda n: n - 4,
    "all but one": lambda n: n - 1,
}
FLIPS = range(20)  # seeds: one to four bytes become others, every second time near the beginning


def cut(path: Path, keep: Callable[[int], int]) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: keep(len(data))])


def flip(path: Path, seed: int) -> None:
    chance, data = random.Random(seed), bytearray(path.read_bytes())
    for _ in range(chance.choice((1, 2, 4))):
        data[chance.randrange(len(data) if seed % 2 else min(400, len(data)))] ^= chance.randrange(1, 256)
    path.write_bytes(bytes(data))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(path: Path, size: int, *extra: bytes) -> Path:
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + bytes(range(8)) for _ in range(8))))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0))
    return content(path, b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + pixels + chunk(b"IEND", b""))


def bomb_mha(path: Path) -> Path:
    voxels = zlib.compress(VOXELS.tobytes() + bytes(2**26), 1)
    head = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = True\n"
        f"CompressedDataSize = {len(voxels)}\nElementSpacing = 1 1 1\nDimSize = 7 8 9\nElementType = MET_SHORT\n"
        "ElementDataFile = LOCAL\n"
    )
    return content(path, head.encode() + voxels)


def bomb_nrrd(path: Path) -> Path:
    head = "NRRD0004\ntype: short\ndimension: 3\nsizes: 2000 2000 2000\nencoding: gzip\nendian: little\n\n"
    return content(path, head.encode() + zlib.compress(bytes(2**20)))


BOMBS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "PNG of 900 million pixels": (lambda d: png(d / "a.png", 30000), "exceeds limit"),
    "PNG with a text of 64 MiB": (
        lambda d: png(d / "a.png", 8, chunk(b"zTXt", b"c\0\0" + zlib.compress(bytes(2**26), 1))),
        "too large",
    ),
    "PNG with a profile of 64 MiB": (
        lambda d: png(d / "a.png", 8, chunk(b"iCCP", b"c\0\0" + zlib.compress(bytes(2**26), 1))),
        "too large",
    ),
    "MetaImage that unpacks to 64 MiB": (lambda d: bomb_mha(d / "a.mha"), "does not hold them"),
    "NRRD that claims 16 GB": (lambda d: bomb_nrrd(d / "a.nrrd"), "8000000000 voxels"),
    "list of itself": (lambda d: content(d / "a.txt", "a.txt\n"), "of a kind that is not read"),
    "table of one endless cell": (
        lambda d: content(d / "a.csv", b"image\n" + b"a" * 2**18 + b"\n"),
        "larger than field limit",
    ),
}

NAMES = (
    "two words",
    " a space ahead and behind ",
    "it's",
    'the "best"',
    "back`tick",
    "Müller, J. (1)",
    "肝臓",
    "печень",
    "كبد",
    "e\u0301 in two signs",
    "\U0001fac0",
    "<b>bold & co",
    "<script>alert(1)",
    "a;b|c$(d)",
    "$HOME",
    "~",
    "-o",
    "--overwrite",
    "100%s",
    "[a]{b}*?",
    "back\\slash",
    "comma,semicolon;",
    "tab\tin it",
    "two\nlines",
    "#hash",
    "a.b.c",
    "con",
    "n" * 200,
    "ж" * 100,
)
REFUSED_NAMES = {
    "n" * 201: "its name is too long",
    "肝" * 67: "its name is too long",
    "\udcff of another code": "is no text in UTF-8",
    "run": "as what a run writes",
    "Details": "as what a run writes",
}
FOLDERS = ("a.nii", "b.nii.gz", "c.mha", "d.nrrd", "e.png", "f.dcm", "g.hdr", "h.tif")  # that are named as images
