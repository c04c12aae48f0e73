"""Laws of pictures: values and places as stored, or one line that refuses."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monai.transforms import LoadImage, SaveImage
from PIL import Image, ImageFile

from monai_unetfamily.io import image2d, read_image2d, read_label_image2d, write_label_image2d
from monai_unetfamily.transforms import Image2DReader, Image2DWriter, LabelImage2DReader

GREY = np.arange(15, dtype=np.uint8).reshape(3, 5) * 17
RGB = np.arange(45, dtype=np.uint8).reshape(3, 5, 3) * 5
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def saved(path: Path, array: np.ndarray, **options: Any) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(path: Path, rows: int, columns: int, depth: int, color: int, lines: bytes, *extra: bytes) -> Path:
    """A PNG by hand: what Pillow does not write."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, depth, color, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    path.write_bytes(PNG_SIGNATURE + header + b"".join(extra) + body)
    return path


def tiff(path: Path, data: np.ndarray, photometric: int = 1, sign: int = 1, order: str = "<", extra: int = 0) -> Path:
    """An uncompressed one-strip TIFF by hand: what Pillow does not write."""
    rows, columns, samples = (*data.shape, 1)[:3]
    tags = {256: columns, 257: rows, 258: 8 * data.itemsize, 259: 1, 262: photometric, 277: samples, 278: rows}
    tags |= {279: data.nbytes, 339: sign} | ({338: extra} if extra else {})
    offset = 8 + 2 + 12 * (len(tags) + 1) + 4
    tags[273] = offset + 2 * samples  # after the bits of each sample, where they are more than two
    entries = b""
    for tag in sorted(tags):
        many = tag == 258 and samples > 2
        value = struct.pack(order + "HH", tags[tag], 0) if not many else struct.pack(order + "I", offset)
        entries += struct.pack(order + "HHI", tag, 3, samples if many else 1) + value
    bits = struct.pack(order + "H", tags[258]) * samples
    start = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "IH", 8, len(tags))
    raw = data.astype(data.dtype.newbyteorder(order)).tobytes()
    path.write_bytes(start + entries + struct.pack(order + "I", 0) + bits + raw)
    return path


KINDS = {
    "1-bit": GREY > 100,
    "8-bit": GREY,
    "16-bit": GREY.astype(np.uint16) * 257,
    "RGB": RGB,
    "float": np.linspace(-1e3, 1e4, 15, dtype=np.float32).reshape(3, 5),
}
FORMATS = ["a.png", "a.tif", "lzw.tif", "deflate.tiff"]


@pytest.mark.parametrize(
    ("kind", "name"),
    [(k, n) for k in KINDS for n in FORMATS if (k, n) != ("float", "a.png")],  # PNG holds no floats
)
def test_values_and_places_are_as_stored(kind: str, name: str, tmp_path: Path) -> None:
    compression = {"lzw.tif": "tiff_lzw", "deflate.tiff": "tiff_adobe_deflate"}.get(name)
    path = saved(tmp_path / name, KINDS[kind], **({"compression": compression} if compression else {}))
    values = read_image2d(path)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, KINDS[kind])
    if kind != "RGB":
        np.testing.assert_array_equal(read_label_image2d(path), KINDS[kind])


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("dtype", "sign"), [("u1", 1), ("u2", 1), ("i2", 2), ("f4", 3)])
def test_a_tiff_of_either_byte_order_reads_as_stored(dtype: str, sign: int, order: str, tmp_path: Path) -> None:
    data = (np.arange(15).reshape(3, 5) - (7 if sign > 1 else 0)).astype(dtype)
    np.testing.assert_array_equal(read_image2d(tiff(tmp_path / "a.tif", data, sign=sign, order=order)), data)


def test_the_resolution_of_a_file_changes_nothing(tmp_path: Path) -> None:
    for name in ("a.png", "a.tif"):
        path = saved(tmp_path / name, GREY, dpi=(72, 300))
        np.testing.assert_array_equal(read_image2d(path), GREY)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_palette_labels_are_indices_whatever_their_colours(name: str, tmp_path: Path) -> None:
    labels = np.arange(15, dtype=np.uint8).reshape(3, 5)
    picture = Image.fromarray(labels, "L").copy()
    picture.putpalette(np.random.default_rng(0).integers(0, 256, 48).astype(np.uint8).tobytes())
    picture.save(tmp_path / name)
    with Image.open(tmp_path / name) as stored:
        assert stored.mode == "P"
    np.testing.assert_array_equal(read_label_image2d(tmp_path / name), labels)
    with pytest.raises(ValueError, match="a.*: got a palette of . bits a sample; greyscale of"):
        read_image2d(tmp_path / name)


@pytest.mark.parametrize(("top", "mode"), [(0, "L"), (255, "L"), (256, "I;16"), (65535, "I;16")])
def test_what_is_written_is_read_and_beyond_255_it_is_16_bit(top: int, mode: str, tmp_path: Path) -> None:
    labels = np.zeros((3, 5), np.int64)
    labels[1, 4] = top
    write_label_image2d(labels, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert (picture.mode, picture.width, picture.height) == (mode, 5, 3)
    np.testing.assert_array_equal(read_label_image2d(tmp_path / "a.png"), labels)


@pytest.mark.parametrize(
    ("labels", "name", "message"),
    [
        (np.full((3, 5), -1), "a.png", "values from -1"),
        (np.full((3, 5), 65536), "a.png", "to 65536; 0 to 65535"),
        (np.zeros((3, 5)), "a.png", "type float64"),
        (np.zeros((3, 5), bool), "a.png", "type bool"),
        (np.zeros((1, 3, 5), int), "a.png", r"shape \(1, 3, 5\)"),
        (np.zeros((0, 5), int), "a.png", r"shape \(0, 5\)"),
        (np.zeros((3, 5), int), "a.jpg", ".png is allowed"),
    ],
)
def test_what_no_png_holds_is_not_written(labels: np.ndarray, name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        write_label_image2d(labels, tmp_path / name)
    assert not list(tmp_path.iterdir())


def animated(path: Path) -> Path:
    frames = [Image.fromarray(GREY), Image.fromarray(GREY[::-1])]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    return path


def turned(path: Path, orientation: int) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(path, GREY, exif=exif)


def transparent(path: Path) -> Path:
    return saved(path, GREY, transparency=17)


def cut(path: Path, drop: int) -> Path:
    path.write_bytes(path.read_bytes()[:-drop])
    return path


def flipped(path: Path) -> Path:
    """One bit of the checksum that ends the pixels."""
    content = bytearray(path.read_bytes())
    content[content.index(b"IEND") - 5] ^= 1
    path.write_bytes(content)
    return path


def text(path: Path) -> Path:
    path.write_text("hello")
    return path


def infinite(path: Path) -> Path:
    values = np.zeros((3, 5), np.float32)
    values[0, :2] = np.nan, np.inf
    return saved(path, values)


ODD = np.arange(60, dtype=np.uint8).reshape(3, 5, 4)
REFUSED: dict[str, tuple[Callable[[Path], Path], type[Exception], str]] = {
    "missing": (lambda d: d / "no.png", FileNotFoundError, "no such file"),
    "folder": (lambda d: d, IsADirectoryError, "is a folder"),
    "text": (lambda d: text(d / "a.png"), ValueError, "cannot be read as PNG or TIFF"),
    "empty": (lambda d: cut(text(d / "a.tif"), 5), ValueError, "cannot be read"),
    "jpeg": (lambda d: saved(d / "a.png", GREY, format="JPEG"), ValueError, "cannot be read as PNG or TIFF"),
    "cut PNG": (lambda d: cut(saved(d / "a.png", GREY), 20), ValueError, "a whole file"),
    "PNG without end": (lambda d: cut(saved(d / "a.png", GREY), 12), ValueError, "a whole file"),
    "cut TIFF": (lambda d: cut(tiff(d / "a.tif", GREY), 1), ValueError, "a whole file"),
    "fax": (
        lambda d: saved(d / "a.tif", GREY > 9, compression="group4"),
        ValueError,
        "compressed as group4, of whose damage libtiff prints a line alone",
    ),
    "flipped bit": (lambda d: flipped(saved(d / "a.png", GREY)), ValueError, "a whole file"),
    "pages": (lambda d: animated(d / "a.tif"), ValueError, "holds 2 pages or frames; one picture is allowed"),
    "animation": (lambda d: animated(d / "a.png"), ValueError, "holds 2 pages or frames"),
    "alpha": (lambda d: saved(d / "a.png", ODD), ValueError, "RGB with alpha of 8 bits"),
    "grey alpha": (lambda d: saved(d / "a.tif", ODD[..., :2]), ValueError, "greyscale with alpha of 8 bits"),
    "transparent colour": (lambda d: transparent(d / "a.png"), ValueError, "with a transparent colour"),
    "fourth sample": (lambda d: saved(d / "a.tif", ODD), ValueError, "with extra samples"),
    "2-bit": (lambda d: png(d / "a.png", 3, 4, 2, 0, b"\0\x1b" * 3), ValueError, "greyscale of 2 bits"),
    "RGB of 16 bits": (lambda d: png(d / "a.png", 3, 1, 16, 2, bytes(21)), ValueError, "RGB of 16 bits"),
    "TIFF RGB of 16 bits": (lambda d: tiff(d / "a.tif", RGB.astype("u2"), 2), ValueError, "RGB of 16 bits"),
    "int32": (lambda d: tiff(d / "a.tif", GREY.astype("i4"), sign=2), ValueError, "greyscale of 32 bits"),
    "signed bytes": (lambda d: tiff(d / "a.tif", GREY.astype("i1"), sign=2), ValueError, "of 8 bits a sample, signed"),
    "0 is white": (lambda d: tiff(d / "a.tif", GREY, photometric=0), ValueError, "photometric tag 0"),
    "turned PNG": (lambda d: turned(d / "a.png", 6), ValueError, "orientation tag 6.*save it upright"),
    "mirrored TIFF": (lambda d: turned(d / "a.tif", 2), ValueError, "orientation tag 2"),
    "NaN": (lambda d: infinite(d / "a.tif"), ValueError, "2 of 15 voxels are NaN or infinite"),
}


@pytest.mark.parametrize("read", [read_image2d, read_label_image2d])
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_meant_is_refused_in_one_line(name: str, read: Callable[[Path], Any], tmp_path: Path) -> None:
    make, kind, message = REFUSED[name]
    path = make(tmp_path)
    with pytest.raises(kind, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_an_upright_tag_is_no_turn(tmp_path: Path) -> None:
    for name in ("a.png", "a.tif"):
        np.testing.assert_array_equal(read_image2d(turned(tmp_path / name, 1)), GREY)


def test_colours_are_no_labels(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got RGB of 8 bits a sample; ids as greyscale .*no colours"):
        read_label_image2d(saved(tmp_path / "a.png", RGB))


@pytest.mark.parametrize("side", [8193, 60_000, 2**31 - 1])
def test_a_bomb_is_refused_by_its_header(side: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "asarray", lambda picture: pytest.fail("pixels were read"))
    path = png(tmp_path / "a.png", side, side, 8, 0, bytes(100))
    with pytest.raises(ValueError, match=r"a\.png: .*(the header claims|exceeds limit)"):
        read_image2d(path)
    monkeypatch.setattr(image2d, "MAX_PIXELS", 14)
    with pytest.raises(ValueError, match="the header claims 5 x 3 pixels; 14 are allowed"):
        read_image2d(saved(tmp_path / "b.tif", GREY))


@pytest.mark.slow
def test_a_damaged_file_is_read_or_refused_but_never_crashes(tmp_path: Path) -> None:
    rng, refused = np.random.default_rng(0), 0
    for name in ("a.png", "a.tif"):
        raw = np.frombuffer(saved(tmp_path / name, GREY).read_bytes(), np.uint8)
        for _ in range(150):
            damaged = raw.copy()
            damaged[rng.integers(0, raw.size, 2)] = rng.integers(0, 256, 2)
            (tmp_path / name).write_bytes(damaged.tobytes())
            try:
                values = read_image2d(tmp_path / name)
            except ValueError:  # anything else fails the test
                refused += 1
            else:
                assert name == "a.tif" or np.array_equal(values, GREY)  # TIFF has no checksums
    assert 100 < refused < 300


def test_monai_loads_and_saves_rows_as_rows(tmp_path: Path) -> None:
    load = LoadImage(Image2DReader, ensure_channel_first=True)
    np.testing.assert_array_equal(load(saved(tmp_path / "a.png", GREY)), GREY[None])
    np.testing.assert_array_equal(load(saved(tmp_path / "b.tif", RGB)), np.moveaxis(RGB, -1, 0))
    save = SaveImage(tmp_path, output_ext=".png", writer=Image2DWriter, resample=False, separate_folder=False)
    save(load(tmp_path / "a.png"))
    labels = LoadImage(LabelImage2DReader, ensure_channel_first=True)(tmp_path / "a_trans.png")
    np.testing.assert_array_equal(labels, GREY[None])


@pytest.mark.parametrize("name", ["a.nii.gz", "a.jpg", "rgba.png"])
def test_no_other_reader_takes_what_ours_refuses(name: str, tmp_path: Path) -> None:
    """LoadImage falls back on every reader it knows, and MONAI's would read these, transposed."""
    if name != "a.nii.gz":
        saved(tmp_path / name, ODD[..., :3] if name == "a.jpg" else ODD)
    with pytest.raises(ValueError, match="is for pictures, PNG or TIFF|RGB with alpha"):
        LoadImage(Image2DReader)(tmp_path / name)


def test_names_of_pictures_are_known_to_monai() -> None:
    reader = Image2DReader()
    assert reader.verify_suffix(["a.PNG", "b.tiff"])
    assert not reader.verify_suffix("a.nii.gz")


def test_a_cut_tiff_is_refused_where_another_package_allows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # Pillow then fills up with black
    path = cut(saved(tmp_path / "a.tif", np.full((40, 50), 7, np.uint8)), 20)
    with pytest.raises(ValueError, match="a whole file is needed"):
        read_image2d(path)
    assert ImageFile.LOAD_TRUNCATED_IMAGES


PACKED = {"jpeg": "its pixel data are damaged \\(JPEGLib: ", "tiff_adobe_deflate": "a whole file is needed"}


@pytest.mark.parametrize("compression", PACKED)
def test_damage_that_libtiff_passes_over_is_refused(
    compression: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    grey = np.add.outer(np.arange(120), np.arange(100)).astype(np.uint8)
    path = saved(tmp_path / "a.tif", grey, compression=compression)
    assert read_image2d(path).shape == grey.shape
    with Image.open(path) as picture:
        start, size = (picture.tag_v2[tag][0] for tag in (273, 279))
    content = bytearray(path.read_bytes())
    content[start + size // 2 : start + size // 2 + 2] = b"\xff\x41"  # a marker that JPEG reserves
    path.write_bytes(content)
    with Image.open(path) as picture:
        assert np.asarray(picture).shape == grey.shape  # decoded all the same
    capfd.readouterr()
    with pytest.raises(ValueError, match=PACKED[compression]):
        read_image2d(path)
    assert capfd.readouterr().err == ""
