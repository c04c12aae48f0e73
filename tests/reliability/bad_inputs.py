"""The table of bad and odd inputs: how each is made, and what is said of it."""

import gzip
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from tests.support.dicom_files import write_series

AFFINE = np.diag([2.0, 2.0, 5.0, 1.0])
VOXELS = np.random.default_rng(0).integers(-1000, 1000, (9, 8, 7)).astype(np.int16)
RGB, RGBA = ([(name, "u1") for name in names] for names in ("RGB", "RGBA"))


def scan(path: Path, voxels: np.ndarray = VOXELS, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


def header(path: Path, **fields: object) -> Path:
    """A scan whose header is overwritten in the file, behind nibabel's back."""
    raw = bytearray(scan(path).read_bytes())
    changed = np.frombuffer(raw[:348], nib.Nifti1Header.template_dtype).copy()
    for field, value in fields.items():
        changed[field] = value
    return content(path, changed.tobytes() + bytes(raw[348:]))


def forms(path: Path, sform: np.ndarray | None, qform: np.ndarray | None, codes: tuple[int, int] = (1, 1)) -> Path:
    image = nib.Nifti1Image(VOXELS, AFFINE)
    image.set_sform(sform, codes[0])
    image.set_qform(qform, codes[1])
    nib.save(image, path)
    return path


def content(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def cut(path: Path, keep: Callable[[int], int]) -> Path:
    data = scan(path).read_bytes()
    return content(path, data[: keep(len(data))])


def flipped(path: Path, at: Callable[[int], int]) -> Path:
    size = scan(path).stat().st_size
    return flipped_at(path, at(size))


def spoiled(path: Path, *values: float) -> Path:
    voxels = VOXELS.astype(np.float32)
    voxels.flat[: len(values)] = values
    return scan(path, voxels)


def pair(path: Path, gone: str) -> Path:
    nib.save(nib.Nifti1Pair(VOXELS, AFFINE), path)
    path.with_suffix(gone).unlink()
    return path


def picture(path: Path, values: np.ndarray) -> Path:
    Image.fromarray(values).save(path)
    return path


def rows(path: Path, count: int) -> Path:
    """A TIFF that claims so many rows."""
    data = bytearray(path.read_bytes())
    (first,) = struct.unpack_from("<I", data, 4)
    (tags,) = struct.unpack_from("<H", data, first)
    (place,) = [
        at for at in range(first + 2, first + 2 + 12 * tags, 12) if struct.unpack_from("<H", data, at) == (257,)
    ]
    struct.pack_into("<HII", data, place + 2, 4, 1, count)
    return content(path, bytes(data))


def unreadable(path: Path) -> Path:
    if os.geteuid() == 0:
        pytest.skip("root may read every file")
    scan(path).chmod(0)
    return path


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def link(path: Path) -> Path:
    path.symlink_to(path.with_name("annexed"))
    return path


def folder(path: Path, *made: Path) -> Path:
    path.mkdir(exist_ok=True)
    return path


def channels(path: Path, *names: str, last: np.ndarray = VOXELS, affine: np.ndarray = AFFINE) -> Path:
    for name in names[:-1]:
        scan(path / name)
    scan(path / names[-1], last, affine)
    return path


def bids(path: Path, *scans: str) -> Path:
    for name in scans:
        scan(path / name)
    return content(path / "dataset_description.json", json.dumps({"Name": "x"})).parent


def moved(shift: float) -> np.ndarray:
    affine = AFFINE.copy()
    affine[0, 3] = shift
    return affine


def turned(degrees: float) -> np.ndarray:
    """z leans towards x: no right angle between the two."""
    affine = AFFINE.copy()
    affine[:3, 2] = 5 * np.sin(np.radians(degrees)), 0, 5 * np.cos(np.radians(degrees))
    return affine


def itk(path: Path, voxels: np.ndarray = VOXELS, keep: int | None = None, gone: str = "") -> Path:
    sitk.WriteImage(spaced(voxels), str(path))
    if gone:
        path.with_name(gone).unlink()
    return content(path, path.read_bytes()[:keep])


def spaced(voxels: np.ndarray) -> sitk.Image:
    """With the size in mm that the others have: of voxels of 1 mm, resampling would leave a handful."""
    image = sitk.GetImageFromArray(voxels, isVector=voxels.ndim == 4)
    if image.GetDimension() == 3:
        image.SetSpacing((5.0, 2.0, 2.0))
    return image


def packed(path: Path) -> Path:
    sitk.WriteImage(spaced(VOXELS), str(path), useCompression=True)
    return path


def flipped_at(path: Path, at: int) -> Path:
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    return content(path, bytes(data))


def series(path: Path, voxels: np.ndarray = VOXELS, gone: int | None = None) -> Path:
    files = write_series(path, voxels, AFFINE)
    if gone is not None:
        files[gone].unlink()
    return path


def cut_slice(path: Path) -> Path:
    content(path / "IM0002", (path / "IM0002").read_bytes()[:-9])
    return path


class Row(NamedTuple):
    """What is handed over, made in an empty folder; a part of the error, or the note; options of the two calls."""

    make: Callable[[Path], Path | str]
    error: str = ""
    note: str = ""
    finding: dict[str, Any] = {}  # noqa: RUF012 (never changed)
    reading: dict[str, Any] = {}  # noqa: RUF012


def refused(make: Callable[[Path], Path | str], error: str, **finding: Any) -> Row:
    return Row(make, error=error, finding=finding)


def noted(make: Callable[[Path], Path | str], note: str, **finding: Any) -> Row:
    return Row(make, note=note, finding=finding)


TWO = {"channels": 2}
ZERO = {"nan": "zero"}
LIE = {"dim": [3, 2000, 2000, 400, 1, 1, 1, 1]}
DAMAGE = {
    "gzip cut in its header": refused(lambda d: cut(d / "a.nii.gz", lambda n: 6), "a.nii.gz: cannot be read as NIfTI"),
    "gzip cut in the header": refused(lambda d: cut(d / "a.nii.gz", lambda n: 60), "cannot be read as NIfTI"),
    "gzip cut in the middle": refused(lambda d: cut(d / "a.nii.gz", lambda n: n // 2), "copy it again"),
    "gzip cut in its checksum": refused(lambda d: cut(d / "a.nii.gz", lambda n: n - 5), "copy it again"),
    "gzip cut by a byte": refused(lambda d: cut(d / "a.nii.gz", lambda n: n - 1), "copy it again"),
    "gzip with a flipped bit": refused(lambda d: flipped(d / "a.nii.gz", lambda n: n // 2), "a.nii.gz: "),
    "gzip with a wrong checksum": refused(lambda d: flipped(d / "a.nii.gz", lambda n: n - 6), "CRC check failed"),
    "file cut by a byte": refused(lambda d: cut(d / "a.nii", lambda n: n - 1), "claims 1360 bytes.* at most 1359"),
    "header cut": refused(lambda d: cut(d / "a.nii", lambda n: 200), "cannot be read as NIfTI"),
    "empty file": refused(lambda d: content(d / "a.nii.gz", b""), "Empty file"),
    "empty gzip": refused(lambda d: content(d / "a.nii.gz", gzip.compress(b"")), "cannot be read as NIfTI"),
    "text": refused(lambda d: content(d / "a.nii.gz", "no scan\n" * 60), "cannot be read as NIfTI"),
    "gzip under a plain name": refused(
        lambda d: content(d / "a.nii", scan(d / "b.nii.gz").read_bytes()), "cannot be read as NIfTI"
    ),
    "no gzip under its name": refused(
        lambda d: content(d / "a.nii.gz", scan(d / "b.nii").read_bytes()), "cannot be read as NIfTI"
    ),
    "NRRD under another name": refused(lambda d: content(d / "a.nii", "NRRD0004\n" * 60), "cannot be read as NIfTI"),
    "wrong magic": refused(lambda d: header(d / "a.nii", magic=b"n+9"), "cannot be read as NIfTI"),
    "a picture that is none": refused(lambda d: content(d / "a.png", "no picture"), "cannot be read as PNG"),
    "TIFF of more rows than it holds": refused(
        lambda d: rows(picture(d / "a.tif", np.ones((8, 9), "u1")), 4000), "35928 pixels of which are not in the file"
    ),
    "hdr without img": refused(lambda d: pair(d / "a.hdr", ".img"), "its a.img is missing"),
    "img without hdr": refused(lambda d: pair(d / "a.img", ".hdr"), "its a.hdr is missing"),
    "hdr without img, in a folder": refused(lambda d: pair(d / "a.hdr", ".img").parent, "its a.img is missing"),
}
HEADERS = {
    "no axes": refused(lambda d: header(d / "a.nii", dim=[0, 9, 8, 7, 1, 1, 1, 1]), "a.nii: "),
    "eight axes": refused(lambda d: header(d / "a.nii", dim=[8, 9, 8, 7, 1, 1, 1, 1]), "a.nii: "),
    "a negative axis": refused(lambda d: header(d / "a.nii", dim=[3, 9, -8, 7, 1, 1, 1, 1]), "a.nii: "),
    "an axis of 0": refused(lambda d: header(d / "a.nii", dim=[3, 9, 0, 7, 1, 1, 1, 1]), "a voxel or more"),
    "1-D": refused(lambda d: scan(d / "a.nii", VOXELS[:, 0, 0]), "1-D where 3-D is meant"),
    "2-D": refused(lambda d: scan(d / "a.nii", VOXELS[..., 0]), "2-D where 3-D is meant"),
    "4-D": refused(
        lambda d: scan(d / "a.nii", VOXELS[..., None].repeat(2, 3)), r"4-D where 3-D .*\(9, 8, 7, 2\).*--channel-dim"
    ),
    "5-D": refused(lambda d: scan(d / "a.nii", VOXELS[..., None, None].repeat(2, 4)), "5-D where 3-D is meant"),
    "3-D with a channel axis": refused(lambda d: scan(d / "a.nii"), "a 4-D file and one of its axes", channel_dim=3),
    "an axis that is none": refused(
        lambda d: scan(d / "a.nii", VOXELS[..., None].repeat(2, 3)), "channels on axis 4", channel_dim=4
    ),
    "claims more than it holds": refused(lambda d: header(d / "a.nii", **LIE), "claims 3200000352 bytes"),
    "claims too many voxels": Row(
        lambda d: scan(d / "a.nii"), "claims 504 voxels; 503 are allowed", reading={"max_voxels": 503}
    ),
    "huge": refused(lambda d: header(d / "a.nii", dim=[3, 32767, 32767, 9, 1, 1, 1, 1]), "claims 9663086601 voxels"),
    "voxels start in the header": refused(
        lambda d: header(d / "a.nii", vox_offset=0), "vox_offset is 0; a whole number from 352"
    ),
    "voxels start beyond the end": refused(lambda d: header(d / "a.nii", vox_offset=1e6), "claims 1001008 bytes"),
    "voxels start beyond gigabytes": refused(
        lambda d: header(d / "a.nii", vox_offset=2**31), "claims 2147483648 bytes ahead of the voxels"
    ),
    "gzip of gigabytes behind the voxels": refused(
        lambda d: content(d / "a.nii.gz", gzip.compress(scan(d / "b.nii").read_bytes() + bytes(2**26 + 2**20 + 1), 1)),
        "more than 67108864 bytes follow them",
    ),
    "RGB": refused(lambda d: scan(d / "a.nii", np.zeros((4, 5, 6), RGB)), "voxels of type RGB; real numbers"),
    "RGBA": refused(lambda d: scan(d / "a.nii", np.zeros((4, 5, 6), RGBA)), "voxels of type RGBA; real numbers"),
    "complex": refused(lambda d: scan(d / "a.nii", VOXELS.astype("c8")), "voxels of type complex64"),
    "unknown type": refused(lambda d: header(d / "a.nii", datatype=777), "cannot be read as NIfTI"),
    "slope NaN": noted(lambda d: header(d / "a.nii", scl_slope=np.nan), ""),
    "slope 0": noted(lambda d: header(d / "a.nii", scl_slope=0), ""),
    "intercept infinite": refused(lambda d: header(d / "a.nii", scl_slope=1, scl_inter=np.inf), "cannot be read"),
}
GEOMETRY = {
    "affine NaN": refused(lambda d: header(d / "a.nii", srow_x=[[np.nan, 0, 0, 0]]), "affine that is not finite"),
    "affine infinite": refused(lambda d: header(d / "a.nii", srow_y=[[0, 2, 0, np.inf]]), "affine that is not finite"),
    "affine singular": refused(lambda d: header(d / "a.nii", srow_z=[[0, 0, 0, 0]]), "singular affine"),
    "no sform and a pixdim of 0": refused(
        lambda d: header(d / "a.nii", sform_code=0, qform_code=1, pixdim=[1, 2, 2, 0, 1, 1, 1, 1]),
        "no sform, and pixdim is 2 x 2 x 0; lengths",
    ),
    "both codes 0": noted(lambda d: forms(d / "a.nii", None, None, (0, 0)), "codes .* are both 0: .* guess"),
    "another qform": noted(lambda d: forms(d / "a.nii", AFFINE, moved(3)), "disagree by up to 3 mm: the sform is used"),
    "another side in the qform": noted(
        lambda d: forms(d / "a.nii", AFFINE, np.diag([-2, 2, 5, 1.0])), "disagree by up to 32 mm: the sform is used"
    ),
    "no rotation in the qform": noted(lambda d: header(d / "a.nii", qform_code=1, quatern_b=3), "holds no rotation"),
    "another pixdim": noted(
        lambda d: header(d / "a.nii", pixdim=[1, 1, 2, 5, 1, 1, 1, 1]), "2 x 2 x 5 mm by the sform, 1 x 2 x 5 by pixdim"
    ),
    "sheared": noted(lambda d: forms(d / "a.nii", turned(10), None, (1, 0)), "sheared: two are 10 degrees off"),
    "in metres": noted(lambda d: header(d / "a.nii", xyzt_units=1), "unit of length is the metre: .* converted to mm"),
    "channels of two sizes": refused(
        lambda d: channels(d, "a_0000.nii", "a_0001.nii", last=VOXELS[1:]), r"a_0001.nii: got shape \(8, 8, 7\)", **TWO
    ),
    "channels on two grids": refused(
        lambda d: channels(d, "a_0000.nii", "a_0001.nii", affine=moved(1)), "a_0001.nii: lies 0.5 voxels off", **TWO
    ),
}
VALUES = {
    "NaN": refused(lambda d: spoiled(d / "a.nii", np.nan), "1 of 504 voxels are NaN .*--nan zero"),
    "infinity": refused(lambda d: spoiled(d / "a.nii", np.inf, -np.inf), "2 of 504 voxels"),
    "all NaN": refused(lambda d: spoiled(d / "a.nii", *[np.nan] * 504), "504 of 504 voxels"),
    "NaN as zero": Row(lambda d: spoiled(d / "a.nii", np.nan), note="1 of 504 .* set to 0", reading=ZERO),
    "all NaN as zero": Row(lambda d: spoiled(d / "a.nii", *[np.nan] * 504), "holds the value 0", reading=ZERO),
    "NaN in a channel": refused(
        lambda d: channels(d, "a_0000.nii", "a_0001.nii", last=VOXELS * np.nan), "504 of 1008 voxels", **TWO
    ),
    "beyond float32": refused(lambda d: scan(d / "a.nii", VOXELS * 1e300), "voxels are NaN or infinite"),
    "constant": refused(
        lambda d: scan(d / "a.nii", np.full((4, 5, 6), -1024, "i2")), "every voxel holds the value -1024"
    ),
    "constant channel": noted(
        lambda d: channels(d, "a_0000.nii", "a_0001.nii", last=VOXELS * 0), "channel 1 holds the value 0", **TWO
    ),
    "constant picture": noted(
        lambda d: picture(d / "a.png", np.zeros((4, 5), "u1")), "channel 0 holds the value 0 everywhere"
    ),
    "unknown way with NaN": Row(lambda d: scan(d / "a.nii"), "got nan='mean'", reading={"nan": "mean"}),
    "too few channels": Row(lambda d: scan(d / "a.nii"), "got 1 channel, 2 are needed", reading=TWO),
}
PLACES = {
    "absent": refused(lambda d: d / "a.nii", "no such file or folder"),
    "empty folder": refused(lambda d: d, "holds no .* and no DICOM"),
    "folder of other files": refused(lambda d: content(d / "a.docx", "x").parent, "holds no .* and no DICOM"),
    "folder named as a file": refused(lambda d: folder(d / "a.nii.gz"), "a.nii.gz: holds no"),
    "another kind": refused(lambda d: content(d / "a.xyz", "x"), "of a kind that is not read"),
    "link to nothing": refused(lambda d: link(d / "a.nii.gz"), "is a link to nothing"),
    "link to nothing, in a folder": refused(lambda d: link(d / "a.nii.gz").parent, "is a link to nothing"),
    "pipe": refused(lambda d: pipe(d / "a.nii.gz"), "is a pipe or a device"),
    "pipe, in a folder": refused(lambda d: pipe(d / "a.nii.gz").parent, "is a pipe or a device"),
    "permission denied": refused(lambda d: unreadable(d / "a.nii"), "Permission denied"),
    "other files beside": noted(lambda d: (content(d / "b.jpg", "x"), scan(d / "a.nii"))[1].parent, "not read: b.jpg"),
    "folders beside": noted(lambda d: (scan(d / "b" / "c.nii"), scan(d / "a.nii"))[1].parent, "without DICOM: b$"),
    "unicode and spaces": noted(lambda d: scan(d / "Müller, J. 肝 (1).nii.gz"), ""),
    "pattern without a match": refused(lambda d: str(d / "*.nii"), "names no image"),
    "pattern of other files": refused(lambda d: str(content(d / "a.docx", "x").with_name("*")), "names no image"),
    "hidden file": refused(lambda d: scan(d / ".h.nii.gz"), "h.nii.gz: its outputs would be called '.h', which"),
    "file without a name": refused(lambda d: scan(d / ".nii.gz"), "would be called '', which is hidden"),
    "two of one name": refused(lambda d: (scan(d / "a.nii"), scan(d / "a.nii.gz"))[1].parent, "would both write 'a'"),
    "two of one name, in a pattern": refused(
        lambda d: str((scan(d / "1/ct.nii"), d / "*" / scan(d / "2/ct.nii").name)[1]), "would both write 'ct'"
    ),
    "nnU-Net without a channel": refused(
        lambda d: channels(d, "a_0000.nii", "b_0000.nii", "b_0001.nii"),
        "a_0001.nii: no such file, channel 1 of 'a'",
        **TWO,
    ),
    "nnU-Net without the first channel": refused(
        lambda d: channels(d, "a_0001.nii"), "a_0000.nii: no such file, channel 0 of 'a'", **TWO
    ),
    "nnU-Net with a channel twice": refused(
        lambda d: channels(d, "a_0000.nii", "a_0001.nii", "a_0001.nii.gz"), "is channel 1 of a", **TWO
    ),
    "BIDS without anat": refused(lambda d: bids(d, "sub-01/func/sub-01_bold.nii.gz"), "BIDS without an image in"),
    "BIDS with a mask": noted(
        lambda d: bids(d, "sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_dseg.nii.gz"), "masks: sub-01_dseg"
    ),
    "BIDS with a subject without anat": noted(
        lambda d: bids(d, "sub-01/ct/sub-01_ct.nii.gz", "sub-02/func/sub-02_bold.nii.gz"), "no scan .*: sub-02"
    ),
    "data set without test images": noted(
        lambda d: (scan(d / "imagesTr/a.nii"), content(d / "dataset.json", "{}"))[1].parent,
        "those of imagesTr are taken",
    ),
}
LISTS = {
    "empty list": refused(lambda d: content(d / "a.txt", "\n# nothing\n"), "a.txt: lists no image"),
    "list of an absent file": refused(lambda d: content(d / "a.txt", "b.nii\n"), "b.nii: no such file"),
    "list of a pattern without a match": refused(lambda d: content(d / "a.txt", "b*.nii\n"), "names no image"),
    "list of bytes": refused(lambda d: content(d / "a.txt", b"\xff\xfe\x00"), "a.txt: is no text in UTF-8"),
    "table without a column": refused(
        lambda d: content(d / "a.csv", "path\nb.nii\n"), r"a.csv: got columns \['path'\]; image"
    ),
    "table of two kinds": refused(lambda d: content(d / "a.csv", "image,image_0\nb,c\n"), "got columns"),
    "table with a gap in its channels": refused(
        lambda d: content(d / "a.csv", "image_0,image_2\nb,c\n"), "got columns"
    ),
    "table without rows": refused(lambda d: content(d / "a.csv", "image\n"), "lists no image"),
    "empty table": refused(lambda d: content(d / "a.csv", ""), "got columns"),
    "table with an empty cell": refused(lambda d: content(d / "a.csv", "name,image\nb,\n"), "line 2: has no image"),
    "table with a hidden name": refused(
        lambda d: content(d / "a.csv", "name,image\na,b.nii\nx/.b,b.nii\n"), "line 3: got the name 'x/.b'; .* hidden"
    ),
    "table with a folder for a name": refused(
        lambda d: content(d / "a.csv", "name,image\nx/,b.nii\n"), "line 2: got the name 'x/'; .* no name"
    ),
    "table with no name but a dot": refused(
        lambda d: content(d / "a.csv", "name,image\n.,b.nii\n"), "line 2: got the name '.'; .* no name"
    ),
    "table with the run's own folder": refused(
        lambda d: content(d / "a.csv", "name,image\n./Details/x,b.nii\n"),
        "2: got the name './Details/x'; details/ is",
    ),
    "table of an absent file": refused(
        lambda d: content(d / "a.csv", "image_0,image_1\nb.nii,c.nii\n"), "b.nii: no such file, channel 0 of 'b'"
    ),
    "table with a name outside": refused(
        lambda d: content(d / "a.csv", "name,image\n../b,b.nii\n"), "outputs stay in their folder"
    ),
    "table with a name twice": refused(
        lambda d: content(d / "a.csv", "name,image\nx,b.nii\nx,c.nii\n"), "c.nii and .*b.nii would both write 'x'"
    ),
}
OTHER_DOORS = {
    "mha cut": refused(lambda d: itk(d / "a.mha", keep=-9), "a.mha: "),
    "mha without its raw": refused(lambda d: itk(d / "a.mhd", gone="a.raw"), "a.mhd: its file of voxels"),
    "nrrd, packed, with a wrong checksum": refused(
        lambda d: flipped_at(packed(d / "a.nrrd"), -6), "does not hold them, copy the file"
    ),
    "nrrd of colours": refused(lambda d: itk(d / "a.nrrd", np.zeros((4, 5, 6, 3), "u1")), "3 values a voxel"),
    "nrrd in 2-D": refused(lambda d: itk(d / "a.nrrd", VOXELS[..., 0]), "one 3-D volume .* is allowed"),
    "text for mha": refused(lambda d: content(d / "a.mha", "no scan\n" * 60), "a.mha: is no MetaImage"),
    "mha with NaN": refused(lambda d: itk(d / "a.mha", VOXELS * np.float32("nan")), "504 of 504 voxels"),
    "series with a gap": refused(lambda d: series(d / "a", gone=3), "a: got .*gap"),
    "series with a gap, resampled": Row(lambda d: series(d / "a", gone=3), note="gap", reading={"gaps": "resample"}),
    "series with a slice cut": refused(lambda d: cut_slice(series(d / "a")), "IM0002"),
    "series of one slice": refused(lambda d: series(d / "a", VOXELS[..., :1]), "a: got no DICOM series"),
    "series that is not there": refused(lambda d: series(d / "a"), "a: 0 series fit 'chest'", series="chest"),
    "text for DICOM": refused(lambda d: content(d / "a.dcm", "no scan\n" * 60), "got no DICOM series"),
    "constant series": refused(lambda d: series(d / "a", VOXELS * 0 - 5), "holds the value -5"),
}
ROWS = OTHER_DOORS | DAMAGE | HEADERS | GEOMETRY | VALUES | PLACES | LISTS
