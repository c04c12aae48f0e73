"""The anatomy of a phantom: an upper abdomen of analytic shapes in patient coordinates (mm, RAS+)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

# Shapes as predicates: a shape says which points (3, ...) in mm lie inside it.


Points = NDArray[np.float32]  # (3, ...) mm
Inside = Callable[[Points], NDArray[np.bool_]]
Triple = tuple[float, float, float]
INFINITE = 1e6  # mm: the radius of a cylinder along its axis


def ellipsoid(
    centre: Triple, radii: Sequence[float] | NDArray[np.float64], tilt: Triple = (0, 0, 0), power: float = 2
) -> Inside:
    """Make the (super)ellipsoid |x/a|^power + |y/b|^power + |z/c|^power < 1 about `centre`, radii in mm.

    It is turned by `tilt` degrees about x, y and z, in this order.

    >>> inside = ellipsoid((10, 0, 0), (5, 5, 20))
    >>> inside(np.array([[10, 10], [0, 6], [19, 0]], np.float32)).tolist()  # two points, in columns
    [True, False]
    """
    to_unit = (_turn(tilt) / np.asarray(radii)).T.astype(np.float32)  # (3, 3)
    offset = -to_unit @ np.asarray(centre, np.float32)
    rows = [[(i, c) for i, c in enumerate(row) if c] for row in to_unit]  # few terms where nothing is tilted

    def inside(points: Points) -> NDArray[np.bool_]:
        total = np.zeros(points.shape[1:], np.float32)
        for row, start in zip(rows, offset, strict=True):
            along = sum((c * points[i] for i, c in row), start)
            total += along * along if power == 2 else np.abs(along) ** np.float32(power)
        return np.asarray(total < 1)

    return inside


def extent(radii: Sequence[float] | NDArray[np.float64], tilt: Triple) -> Triple:
    """Return the half widths (mm along x, y, z) of the box about an `ellipsoid`.

    >>> [round(width) for width in extent((30, 10, 5), tilt=(0, 0, 90))]
    [10, 30, 5]
    """
    x, y, z = np.linalg.norm(_turn(tilt) * np.asarray(radii), axis=1)
    return float(x), float(y), float(z)


def less(inside: Inside, *others: Inside) -> Inside:
    """Take from `inside` the points that are in any of `others`.

    >>> rim = less(ellipsoid((0, 0, 0), (3, 3, 3)), ellipsoid((0, 0, 0), (2, 2, 2)))
    >>> rim(np.array([[2.5, 1], [0, 0], [0, 0]], np.float32)).tolist()
    [True, False]
    """

    def remaining(points: Points) -> NDArray[np.bool_]:
        kept = inside(points)
        for other in others:
            kept = kept & ~other(points)
        return kept

    return remaining


def repeated(inside: Inside, start: float, period: float, height: float) -> Inside:
    """Keep of `inside` the slabs of `height` mm along z that begin at `start` and again every `period` mm.

    >>> discs = repeated(ellipsoid((0, 0, 0), (5, 5, INFINITE)), start=0, period=30, height=8)
    >>> discs(np.array([[0, 0, 0], [0, 0, 0], [4, 20, 34]], np.float32)).tolist()
    [True, False, True]
    """
    return lambda p: inside(p) & ((p[2] - start) % np.float32(period) < height)


def _turn(tilt: Triple) -> NDArray[np.float64]:
    return np.asarray(Rotation.from_euler("xyz", tilt, degrees=True).as_matrix())


# An upper abdomen of analytic shapes, in patient millimetres (RAS+: x to the right, y to the front, z up).
#
# The patient knows nothing of voxels: `phantom.py` scans it on any grid. The origin lies in front of the spine,
# in the middle of the body, about at the height of the first lumbar vertebra. Sizes follow adult anatomy,
# intensities the Hounsfield units (HU) of unenhanced or portal-venous CT, in ranges that overlap: no threshold
# finds an organ.

LABELS = {0: "background", 1: "liver", 2: "spleen", 3: "left_kidney", 4: "right_kidney", 5: "spine"}
ID = {name: label for label, name in LABELS.items()}
AIR = -1000.0  # HU

_HU = {  # tissue: (least, most) unenhanced, (least, most) portal-venous
    "skin": ((0, 30), (0, 30)),
    "fat": ((-115, -95), (-115, -95)),
    "muscle": ((45, 60), (55, 70)),
    "lung": ((-870, -800), (-870, -800)),
    "rib": ((280, 420), (280, 420)),
    "cancellous": ((150, 230), (150, 230)),
    "cortex": ((400, 550), (400, 550)),
    "disc": ((70, 100), (70, 100)),
    "canal": ((10, 30), (10, 30)),
    "blood": ((35, 50), (120, 170)),
    "hepatic vessel": ((30, 45), (120, 160)),
    "liver": ((50, 65), (90, 125)),
    "spleen": ((42, 60), (95, 130)),
    "kidney": ((28, 45), (110, 165)),
    "pancreas": ((30, 50), (70, 110)),
    "bile": ((0, 20), (0, 20)),
    "bowel": ((15, 60), (20, 110)),
    "gas": ((-980, -850), (-980, -850)),
}


@dataclass(frozen=True)
class Structure:
    """One shape: where it is, its intensity, its label, and which earlier structures it may cover."""

    name: str
    hu: float
    inside: Inside
    over: tuple[str, ...]  # names of the structures it replaces; empty: all of them
    label: int
    centre: Triple  # mm
    extent: Triple  # mm to either side of the centre: no point of it lies outside that box


@dataclass(frozen=True)
class Anatomy:
    """A patient: structures in painting order, and the smooth deformation that makes them this patient's."""

    structures: tuple[Structure, ...]
    scale: float
    waves: NDArray[np.float32]  # (W, 3) radians per mm
    phases: NDArray[np.float32]  # (W,)
    amplitudes: NDArray[np.float32]  # (W, 3) mm

    def to_model(self, points: Points) -> Points:
        """Map patient points (3, ...) in mm to the undeformed model, where the structures are defined."""
        model = points / np.float32(self.scale)
        for wave, phase, amplitude in zip(self.waves, self.phases, self.amplitudes, strict=True):
            ripple = np.sin(np.tensordot(wave, points, 1) + phase)
            model += amplitude.reshape(3, *[1] * ripple.ndim) * ripple
        return model

    @property
    def slack(self) -> float:
        """Millimetres by which the deformation moves a point at most, apart from the scale."""
        return float(np.linalg.norm(self.amplitudes, axis=1).sum())


def draw_anatomy(rng: np.random.Generator, absent: Sequence[str] = ()) -> Anatomy:
    """Draw a patient; the organs in `absent` (names of `LABELS`) are left out and fat takes their place.

    The draws do not depend on `absent`: the same generator gives the same patient with and without the organ.

    >>> patient = draw_anatomy(np.random.default_rng(0), absent=["spleen"])
    >>> sorted({LABELS[s.label] for s in patient.structures})
    ['background', 'left_kidney', 'liver', 'right_kidney', 'spine']
    """
    draft = _Draft(rng)
    for region in (_trunk, _chest, _back, _spine, _kidneys, _vessels, _upper_organs, _bowel):
        region(draft)
    lengths, ways = rng.uniform(130, 260, (3, 1)), rng.standard_normal((3, 3))
    waves = 2 * np.pi / lengths * ways / np.linalg.norm(ways, axis=1, keepdims=True)
    return Anatomy(
        structures=tuple(s for s in draft.structures if LABELS[s.label] not in absent),
        scale=rng.uniform(0.95, 1.03),
        waves=waves.astype(np.float32),
        phases=rng.uniform(0, 2 * np.pi, 3).astype(np.float32),
        amplitudes=rng.uniform(-2, 2, (3, 3)).astype(np.float32),
    )


class _Draft:
    """Collects structures; sizes, places and intensities vary by the generator."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.enhanced = bool(rng.random() < 0.5)
        self.structures: list[Structure] = []

    def add(
        self,
        name: str,
        tissue: str,
        inside: Inside,
        over: tuple[str, ...] = (),
        centre: Triple = (0, 0, 0),
        extent: Triple = (INFINITE, INFINITE, INFINITE),
    ) -> None:
        hu = self.rng.uniform(*_HU[tissue][self.enhanced])
        label = ID.get(name.partition("/")[0], 0)
        self.structures.append(Structure(name, hu, inside, over, label, centre, extent))

    def lump(
        self,
        name: str,
        tissue: str,
        centre: Triple,
        radii: Triple,
        tilt: Triple = (0, 0, 0),
        over: tuple[str, ...] = ("fat",),
        but: Sequence[Inside] = (),
        sway: float = 3.0,
    ) -> Triple:
        """Add an ellipsoid less the shapes in `but`; `sway` mm is the standard deviation of its place."""
        moved = np.asarray(centre) + np.clip(self.rng.standard_normal(3), -2, 2) * sway
        place: Triple = (float(moved[0]), float(moved[1]), float(moved[2]))
        grown = np.asarray(radii) * np.clip(1 + 0.03 * self.rng.standard_normal(3), 0.94, 1.06)
        self.add(name, tissue, less(ellipsoid(place, grown, tilt), *but), over, place, extent(grown, tilt))
        return place

    def hollow(self, name: str, centre: Triple, radii: Triple, tilt: Triple = (0, 0, 0), gas: float = 0.0) -> None:
        """Add a loop of bowel or the stomach; `gas` is the share of its height, at the front, that is gas."""
        at = self.lump(name, "bowel", centre, radii, tilt, sway=4.0)
        if gas > 0:
            level = at[1] + min(radii) * (1 - 2 * gas)  # the patient lies on the back: gas rises to the front
            lumen = ellipsoid(at, np.asarray(radii) - 3.0, tilt)  # 3 mm of wall
            self.add("gas", "gas", lambda p: lumen(p) & (p[1] > level), (name,), at, extent(radii, tilt))


def _trunk(draft: _Draft) -> None:
    rim, flank = draft.rng.uniform(7, 17), draft.rng.uniform(9, 11.5)  # mm of fat under the skin, of muscle
    depths = {
        "skin": 0.0,
        "subcutaneous": 2.0,
        "wall": 2 + rim,
        "pleura": rim + flank - 5.5,
        "fat": 2 + rim + flank,
    }
    layers = {name: ellipsoid((0, 0, 0), (147 - d, 105 - d, INFINITE), power=2.3) for name, d in depths.items()}
    draft.add("skin", "skin", layers["skin"])
    draft.add("subcutaneous", "fat", layers["subcutaneous"])
    draft.add("wall", "muscle", layers["wall"])
    first, slope = draft.rng.uniform(0, 36), 0.6  # ribs go down towards the front

    def ribs(points: Points) -> NDArray[np.bool_]:
        x, y, z = points
        band = (z + np.float32(slope) * y - first) % np.float32(36) < 13
        margin = np.where(y > 0, 1.1 * y, -0.45 * y) - 65  # lowest at the flanks, up to the breastbone in front
        return layers["pleura"](points) & band & (z > margin) & (np.abs(x) > 30)

    draft.add("rib", "rib", ribs, ("wall",))
    draft.add("fat", "fat", layers["fat"])


def _chest(draft: _Draft) -> None:
    apex = draft.rng.normal(84, 4)

    def above_diaphragm(points: Points) -> NDArray[np.bool_]:
        x, y, z = points
        right = apex - 0.0075 * ((x - 65) ** 2 + (y - 2) ** 2)
        left = apex - 8 - 0.008 * ((x + 68) ** 2 + (y + 2) ** 2)
        middle = apex - 22 - 0.006 * (x**2 + (y - 25) ** 2)
        beside_spine = (np.abs(x) < 38) & (y < -57)
        return np.asarray((z > np.maximum(np.maximum(right, left), middle)) & ~beside_spine)

    draft.add("lung", "lung", above_diaphragm, ("fat",))
    draft.lump("heart", "blood", (-22, 32, 105), (52, 40, 42), over=("lung",))


def _back(draft: _Draft) -> None:
    for side in (-1, 1):
        draft.lump(
            "erector",
            "muscle",
            (side * 32, -80, 0),
            (30, 17, INFINITE),
            over=("fat", "wall", "rib", "lung"),
            sway=1.0,
        )
        draft.lump("psoas", "muscle", (side * 34, -46, -110), (19, 20, 105), (0, side * -6.0, 0), sway=1.0)
        draft.lump("quadratus", "muscle", (side * 62, -70, -70), (22, 9, 75), (0, 0, side * 20.0), sway=1.0)


def _spine(draft: _Draft) -> None:
    first, period = draft.rng.uniform(0, 36), draft.rng.uniform(34, 38)
    body, core = ellipsoid((0, -40, 0), (22, 17, INFINITE)), ellipsoid((0, -40, 0), (19.5, 14.5, INFINITE))
    canal = ellipsoid((0, -64, 0), (11, 8, INFINITE))
    arch = less(ellipsoid((0, -64, 0), (17, 13, INFINITE)), canal)
    spinous = ellipsoid((0, -86, 0), (4, 18, INFINITE), power=4)
    transverse = ellipsoid((0, -62, 0), (42, 5, INFINITE), power=4)
    soft = ("fat", "wall", "rib", "lung", "erector", "psoas", "spine/disc")
    for name, tissue, inside, over in (
        ("disc", "disc", body, ()),
        ("cortex", "cortex", repeated(body, first, period, period - 8), ()),
        ("body", "cancellous", repeated(core, first + 2, period, period - 12), ()),
        ("transverse", "rib", repeated(transverse, first + 10, period, 9), soft),
        ("spinous", "rib", repeated(spinous, first + 2, period, 19), soft),
        ("arch", "cortex", repeated(arch, first, period, 26), soft),
    ):
        draft.add(f"spine/{name}", tissue, inside, over, (0, -65, 0), (43, 45, INFINITE))
    draft.add("canal", "canal", canal, (), (0, -64, 0), (11, 8, INFINITE))


def _kidneys(draft: _Draft) -> None:
    for name, side, height in (("right_kidney", 1, -38.0), ("left_kidney", -1, -24.0)):
        tilt = (8.0, side * 10.0, side * 25.0)  # upper poles inwards, hila forwards
        at = (
            side * 64 + draft.rng.normal(0, 2),
            -43 + draft.rng.normal(0, 2),
            height + draft.rng.normal(0, 6),
        )
        draft.lump("perirenal", "fat", at, (35, 31, 64), tilt, sway=0.0)
        # the sinus: fat and vessels in the hilum, which opens inwards and forwards
        sinus = ellipsoid((at[0] - side * 19, at[1] + 8, at[2]), (19, 10, 24), tilt)
        draft.lump(name, "kidney", at, (31, 27, 57), tilt, ("perirenal",), (sinus,), sway=0.0)
        draft.lump(f"{name}/medulla", "kidney", at, (19, 15, 42), tilt, (name,), sway=0.0)
        inner = (at[0] - side * 24, at[1] + 9, at[2])
        draft.lump("renal vein", "blood", inner, (26, 5, 6), tilt, ("fat", "perirenal"), sway=1.0)


def _vessels(draft: _Draft) -> None:
    draft.lump("aorta", "blood", (-9, -13, 0), (10, 10, INFINITE), over=("fat", "lung"), sway=1.0)
    draft.lump("cava", "blood", (18, -12, 0), (12, 9, INFINITE), over=("fat",), sway=1.0)


def _upper_organs(draft: _Draft) -> None:
    draft.lump("gallbladder", "bile", (42, 34, -14), (14, 15, 28), (20, 10, 0))
    hilum = ellipsoid((-32, -35, -62), (92, 82, 82), (0, 35, 0))  # hollows the visceral surface
    draft.lump("liver", "liver", (64, 2, 20), (69, 87, 80), (0, 0, 0), but=(hilum,))
    draft.lump("liver/left lobe", "liver", (4, 38, 46), (76, 36, 34), (0, -10, -8), ("fat",), (hilum,))
    for centre, radii, tilt in (
        ((52, 0, 55), (40, 4, 4), (0, 20, 25)),
        ((50, 8, 38), (36, 5, 5), (0, -15, -30)),
        ((72, -10, 30), (34, 4, 4), (0, 40, 60)),
        ((64, 25, 52), (32, 3.5, 3.5), (0, 10, -55)),
    ):
        draft.lump("liver/vessel", "hepatic vessel", centre, radii, tilt, ("liver", "liver/left lobe"), sway=4.0)
    fundus = ellipsoid((-52, 2, 26), (37, 44, 56), (0, 0, 25))
    draft.lump("spleen", "spleen", (-88, -30, 30), (40, 53, 55), (15, 0, 15), ("fat",), (fundus,))
    draft.hollow("stomach", (-50, 30, 38), (40, 34, 42), (0, 25, -20), gas=draft.rng.uniform(0.15, 0.45))
    draft.lump("pancreas", "pancreas", (-12, 6, -4), (58, 10, 13), (0, 15, -12))


def _bowel(draft: _Draft) -> None:
    rng = draft.rng
    draft.hollow("ascending colon", (94, 6, -78), (23, 24, 46), gas=rng.uniform(0, 0.5))
    draft.hollow("descending colon", (-98, -18, -62), (17, 18, 62), gas=rng.uniform(0, 0.4))
    draft.hollow("transverse colon", (0, 56, -34), (88, 16, 18), (0, rng.normal(0, 6), 0), gas=rng.uniform(0.1, 0.5))
    for loop in range(52):
        centre = tuple(rng.uniform((-84, -4, -125), (78, 60, -16)))
        radii = tuple(rng.uniform((20, 11, 11), (38, 18, 18)))
        gas = max(0.0, rng.uniform(-0.6, 0.35))
        draft.hollow(f"loop {loop}", centre, radii, tuple(rng.uniform(-40, 40, 3)), gas)
