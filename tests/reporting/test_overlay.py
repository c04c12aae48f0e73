from itertools import combinations, permutations, product

import nibabel as nib
import numpy as np
import pytest
from matplotlib.image import imread
from nibabel.orientations import inv_ornt_aff

from monai_unetfamily.io import hex_color, palette
from monai_unetfamily.reporting import save_overlay
from monai_unetfamily.reporting.overlay import image2d_plane, radiological_planes

SHAPE, SPACING = (12, 10, 8), (1.0, 1.5, 3.0)
AFFINE = np.array([[1.0, 0, 0, -4], [0, 1.5, 0, 3], [0, 0, 3, 11], [0, 0, 0, 1]])
NAMES = {1: "liver", 2: "spleen"}
ORIENTATIONS = [
    np.array(list(zip(axes, flips, strict=True)))
    for axes in permutations(range(3))
    for flips in product((1, -1), repeat=3)
]


def axcodes(orientation):
    return "".join(nib.orientations.ornt2axcodes(orientation))


def patient():
    """RAS image and labels; label 1 fills the patient's right-anterior-superior octant."""
    image = np.random.default_rng(0).normal(100, 20, SHAPE)
    labels = np.zeros(SHAPE, np.uint8)
    labels[6:, 5:, 4:] = 1
    labels[7, 7, 6] = 2  # makes no slice larger, marks a voxel
    return image, labels


def stored(volume, orientation):
    """The same patient with its axes stored another way, and the affine that says so."""
    there = nib.orientations.ornt_transform([[0, 1], [1, 1], [2, 1]], orientation)
    return nib.orientations.apply_orientation(volume, there), AFFINE @ inv_ornt_aff(there, SHAPE)


def picture(path, *volumes, affine=AFFINE, **options):
    """The rendered pixels (row, column, RGB) as 0..255."""
    image, labels, *reference = volumes
    options = {"names": NAMES, "reference": reference[0] if reference else None} | options
    save_overlay(image, labels, affine, path, **options)
    return np.round(imread(path)[..., :3] * 255).astype(int)


def count(pixels, color, within=3):
    """Pixels of a colour (0..255)."""
    return int((np.abs(pixels - np.array(color)).max(axis=-1) <= within).sum())


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=axcodes)
def test_planes_do_not_depend_on_storage(orientation):
    expected = radiological_planes(*patient(), AFFINE, patient()[1] == 2)
    (image, affine), (labels, _) = (stored(volume, orientation) for volume in patient())
    for plane, wanted in zip(radiological_planes(image, labels, affine, labels == 2), expected, strict=True):
        np.testing.assert_equal(tuple(plane), tuple(wanted))


@pytest.mark.slow
@pytest.mark.parametrize("orientation", ORIENTATIONS[::5], ids=axcodes)
def test_pictures_do_not_depend_on_storage(tmp_path, orientation):
    expected = picture(tmp_path / "ras.png", *patient())
    (image, affine), (labels, _) = (stored(volume, orientation) for volume in patient())
    np.testing.assert_array_equal(picture(tmp_path / "other.png", image, labels, affine=affine), expected)


def test_planes_are_radiological():
    """The voxel furthest right, front and up is at the left, top corner; letters and spacing say the same."""
    image = np.zeros(SHAPE)
    labels = np.zeros(SHAPE, int)
    labels[-1, -1, -1] = 1
    axial, coronal, sagittal = radiological_planes(image, labels, AFFINE)
    for plane, shape in ((axial, (10, 12)), (coronal, (8, 12)), (sagittal, (8, 10))):
        assert plane.labels.shape == shape
        assert np.argwhere(plane.labels).tolist() == [[0, 0]]
    assert [plane.letters for plane in (axial, coronal, sagittal)] == ["RLAP", "RLSI", "APSI"]
    assert [plane.spacing for plane in (axial, coronal, sagittal)] == [(1.5, 1.0), (3.0, 1.0), (3.0, 1.5)]
    # corner voxel: x = -4 + 11 * 1, y = 3 + 9 * 1.5 = 16.5, z = 11 + 7 * 3
    assert [plane.position for plane in (axial, coronal, sagittal)] == ["S 32 mm", "A 16 mm", "R 7 mm"]


def test_oblique_volumes_are_permuted_not_resampled():
    angle = np.deg2rad(20)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    image, labels = patient()
    straight, oblique = (radiological_planes(image, labels, affine) for affine in (AFFINE, turn @ AFFINE))
    for plane, wanted in zip(oblique, straight, strict=True):
        np.testing.assert_array_equal(plane.image, wanted.image)
        assert plane.spacing == pytest.approx(wanted.spacing)


def test_slices_go_where_most_is_labelled():
    image = np.arange(np.prod(SHAPE), dtype=float).reshape(SHAPE)
    labels = np.zeros(SHAPE, int)
    labels[2:9, 4, 1] = 1
    labels[3, 2:8, 1] = 1
    labels[3, 4, 1:6] = 1
    axial, coronal, sagittal = radiological_planes(image, labels, AFFINE)
    np.testing.assert_array_equal(axial.image, image[:, ::-1, 1].T[:, ::-1])
    np.testing.assert_array_equal(coronal.image, image[:, 4, ::-1].T[:, ::-1])
    np.testing.assert_array_equal(sagittal.image, image[3, ::-1, ::-1].T)


def test_slices_fall_back_to_the_reference_then_the_middle():
    image, labels = patient()
    empty = np.zeros_like(labels)
    found = radiological_planes(image, empty, AFFINE, labels)
    for plane, wanted in zip(found, radiological_planes(image, labels, AFFINE), strict=True):
        np.testing.assert_array_equal(plane.image, wanted.image)
        assert not plane.labels.any()
        assert plane.reference.any()
    axial, _, _ = radiological_planes(image, empty, AFFINE)
    np.testing.assert_array_equal(axial.image, image[::-1, ::-1, 4].T)


@pytest.mark.slow
def test_the_right_anterior_corner_is_at_the_upper_left(tmp_path):
    """In the first panel the organ's outline lies in the upper left quarter of the slice's frame."""
    _, labels = patient()
    pixels = picture(tmp_path / "a.png", np.zeros(SHAPE), np.minimum(labels, 1))
    frame = np.abs(pixels - [0x3C, 0x40, 0x43]).max(axis=-1) < 3
    left, right, *_ = np.flatnonzero(frame.sum(axis=0) > 200)  # long vertical lines
    top, *_, bottom = np.flatnonzero(frame.sum(axis=1) > 200)
    line = np.argwhere(np.abs(pixels - np.array(palette(1))).max(axis=-1) < 3)
    line = line[(line[:, 1] < right + 3) & (line[:, 0] < bottom + 3)]  # without legend and other panels
    assert line.min(axis=0) == pytest.approx([top, left], abs=3)
    assert line.max(axis=0) == pytest.approx([(top + bottom) / 2, (left + right) / 2], abs=3)


@pytest.mark.slow
def test_reference_is_drawn_dashed_and_missed_classes_are_seen(tmp_path):
    image, labels = np.zeros(SHAPE), np.zeros(SHAPE, int)
    labels[3:9, 3:8, 2:6] = 1
    plain = picture(tmp_path / "plain.png", image, labels)
    agreed = picture(tmp_path / "agreed.png", image, labels, labels)
    missed = picture(tmp_path / "missed.png", image, labels, 2 * labels)
    only = picture(tmp_path / "only.png", image, np.zeros_like(labels), labels)
    assert count(plain, palette(2)) == 0 < count(missed, palette(2))
    assert count(agreed, palette(1)) == pytest.approx(count(plain, palette(1)), rel=0.01)  # on its own line
    assert count(only, palette(1)) < 0.8 * count(plain, palette(1))  # dashes alone leave gaps
    assert agreed.shape != plain.shape or (agreed != plain).any()  # the legend explains the lines


@pytest.mark.slow
def test_window_is_given_or_guessed(tmp_path):
    labels = np.zeros(SHAPE, int)
    ramp = np.linspace(-1000, 1000, np.prod(SHAPE)).reshape(SHAPE)
    soft = picture(tmp_path / "ct.png", ramp, labels)
    np.testing.assert_array_equal(picture(tmp_path / "w.png", ramp, labels, window=(-160, 240)), soft)
    assert (picture(tmp_path / "bone.png", ramp, labels, window=(-450, 1050)) != soft).any()
    # percentiles follow any linear change of an MR's arbitrary units
    mr = picture(tmp_path / "mr.png", ramp + 1000, labels)
    np.testing.assert_allclose(picture(tmp_path / "mr2.png", 7 * ramp + 7000, labels), mr, atol=1)


@pytest.mark.slow
def test_odd_images_are_drawn(tmp_path):
    """Constant, big-endian, half precision, partly NaN, and names that a plotter would take for its own."""
    image, labels = patient()
    expected = picture(tmp_path / "a.png", np.round(image), labels, names={1: "_$x$"})
    for kind in (">i2", "<i8", "f2", ">f4"):
        same = np.round(image).astype(kind), labels.astype(">u2")
        found = picture(tmp_path / "b.png", *same, names={1: "_$x$"})
        np.testing.assert_allclose(found, expected, atol=3)  # interpolation rounds by type
    picture(tmp_path / "c.png", np.full(SHAPE, 7.0), labels)
    image[:3] = np.nan
    assert count(picture(tmp_path / "d.png", image, labels), (0, 0, 0), within=0) > 1000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "title", "names"),
    [
        ((40, 40, 3), "W" * 300, {}),
        ((6, 6, 60), "word " * 60, {}),
        ((20, 20, 20), "", {label: f"segment {label} of the atlas" for label in range(1, 31)}),
        ((90, 10), "W" * 300, {label: f"segment {label} of the atlas" for label in range(1, 31)}),
        ((10, 90), "", dict.fromkeys(range(1, 31), "W" * 60)),
    ],
)
def test_nothing_is_clipped(tmp_path, shape, title, names):
    """The ground shows all around, whatever the image's shape, the title and the number of classes."""
    labels = (np.arange(np.prod(shape)).reshape(shape) * 30 // np.prod(shape)) + 1
    affine = np.eye(4) if len(shape) == 3 else None
    pixels = picture(tmp_path / "a.png", np.zeros(shape), labels, affine=affine, title=title, names=names)
    border = np.ones(pixels.shape[:2], bool)
    border[12:-12, 12:-12] = False
    np.testing.assert_allclose(pixels[border], [[0x0B, 0x0D, 0x10]] * border.sum(), atol=1)


@pytest.mark.slow
def test_the_legend_names_the_largest_classes_alone(tmp_path):
    """105 classes in view take no more room than 41 names; the small ones are seen, not named."""
    columns = np.repeat(np.arange(1, 106), [4] * 40 + [1] * 65)  # 40 wide ones, 65 narrow
    labels = np.broadcast_to(columns, (60, columns.size))
    forty = picture(tmp_path / "a.png", np.zeros(labels.shape), np.where(labels > 41, 0, labels), affine=None, names={})
    all_of_them = picture(tmp_path / "b.png", np.zeros(labels.shape), labels, affine=None, names={})
    assert all_of_them.shape[1] == forty.shape[1]
    assert 0 <= all_of_them.shape[0] - forty.shape[0] < 60  # a line or two
    assert count(all_of_them, palette(105)) > 0


def test_a_picture_is_shown_as_it_is(tmp_path):
    """Row 0 at the top, column 0 on the left; one panel."""
    image, labels = np.zeros((30, 40)), np.zeros((30, 40), int)
    labels[:10, :30] = 1
    plane = image2d_plane(image, labels, labels)
    for shown in (plane.labels, plane.reference):
        np.testing.assert_array_equal(shown, labels)
    pixels = picture(tmp_path / "a.png", image, labels, affine=None)
    frame = np.abs(pixels - [0x3C, 0x40, 0x43]).max(axis=-1) < 3
    left, right = np.flatnonzero(frame.sum(axis=0) > 200)[[0, -1]]
    top, bottom = np.flatnonzero(frame.sum(axis=1) > 200)[[0, -1]]
    line = np.argwhere(np.abs(pixels - np.array(palette(1))).max(axis=-1) < 3)
    line = line[line[:, 0] < bottom + 3]  # without the legend
    assert line.min(axis=0) == pytest.approx([top, left], abs=3)
    expected = [top + (bottom - top) / 3, left + (right - left) * 3 / 4]
    assert line.max(axis=0) == pytest.approx(expected, abs=3)


def test_palette_tells_labels_apart():
    colors = {label: np.array(palette(label)) for label in range(1, 21)}
    assert min(np.abs(a - b).max() for a, b in combinations(colors.values(), 2)) > 30
    assert min(color.max() for color in colors.values()) > 100  # seen on a dark ground
    assert all(0 <= value <= 255 for label in range(1, 200) for value in palette(label))
    assert len({palette(label) for label in range(1, 200)}) == 199
    assert all(hex_color(label) == "#{:02x}{:02x}{:02x}".format(*palette(label)) for label in range(1, 200))
    with pytest.raises(ValueError, match="background"):
        palette(0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros((12, 10, 7), int)}, r"\(12, 10, 7\).*one shape"),
        ({"reference": np.zeros((12, 10, 7), int)}, r"\(12, 10, 7\).*one shape"),
        ({"labels": np.zeros((12, 10, 7, 2), int)}, r"\(12, 10, 7, 2\).*one shape"),
        ({"reference": np.zeros((*SHAPE, 2), int)}, r"\(12, 10, 8, 2\).*one shape"),
        ({"image": np.zeros((12, 10)), "labels": np.zeros((12, 10), int)}, "one shape"),
        ({"affine": None}, r"one shape \(rows, columns\)"),
        ({"affine": np.zeros((4, 4))}, "invertible"),
        ({"affine": np.eye(3)}, "invertible"),
        ({"window": (5.0, -5.0)}, "low before high"),
        ({"image": np.full(SHAPE, np.nan)}, "finite"),
    ],
)
def test_bad_arguments_are_refused_and_leave_no_file(tmp_path, change, message):
    image, labels = patient()
    arguments = {
        "image": image,
        "labels": labels,
        "affine": AFFINE,
        "path": tmp_path / "a.png",
        "names": NAMES,
    }
    with pytest.raises(ValueError, match=message):
        save_overlay(**(arguments | change))
    assert not list(tmp_path.iterdir())


def test_a_failed_write_keeps_the_old_picture(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    picture(path, *patient())
    before = path.read_bytes()

    def full(canvas, file, **options):
        file.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr("matplotlib.backends.backend_agg.FigureCanvasAgg.print_png", full)
    with pytest.raises(OSError, match="no space"):
        picture(path, *patient())
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
