"""Shapes as predicates: a shape says which points (3, ...) in mm lie inside it."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

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
