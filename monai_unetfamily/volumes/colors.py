"""The colour of a class: the same in pictures, in files and in pages."""

from colorsys import hsv_to_rgb

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
