"""The floors of the package, drawn from what its files import, into docs/images/floors.svg.

    PYTHONPATH=tests python docs/draw_floors.py

The floors are those of tests/test_architecture.py, which proves that no import points up; each room says what its own
docstring says.
"""

import ast
from html import escape
from pathlib import Path
from textwrap import wrap

from test_architecture import FILES, FLOORS, FRONT_DOOR, ROOT, Source, room

FILE = ROOT / "docs/images/floors.svg"
WIDTH, HEIGHT, GAP, LEFT = 960, 92, 12, 44  # pixels; a floor's height, between boxes, for the floor's number
LETTER, LINE = 6.6, 16  # pixels: about a letter's width, and from line to line
HEAD = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} %d" font-family="sans-serif" font-size="12.5">'
STYLE = """<style>
  text { fill: #1a1c1f } .name { font-size: 15px; font-weight: bold } .below { fill: #5b6470 }
  .floor { font-size: 20px }
  rect { fill: #eef3f8; stroke: #5b7fa6 } .page { fill: #ffffff; stroke: none }
</style>"""


def source(file: Path) -> Source:
    """The file with its dotted name."""
    return Source(".".join(file.relative_to(ROOT).with_suffix("").parts), file.read_text("utf-8"))


def imported(name: str) -> list[str]:
    """The rooms that a room's files import, lowest last."""
    own = [source(file) for file in FILES if room(source(file).module) == name]
    ours = [item for file in own for _, item in file.imports if item.partition(".")[0] == "monai_unetfamily"]
    rooms = {room(item) for item in ours} & set(FLOORS) - {name, FRONT_DOOR}
    return sorted(rooms, key=lambda item: (-FLOORS[item], item))


def purpose(name: str) -> str:
    """The first sentence of the room's docstring."""
    file = ROOT / (name if name == "napari_plugin" else f"monai_unetfamily/{name}") / "__init__.py"
    text = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or ""
    return text.split("\n\n")[0].replace("\n", " ").replace("`", "")


def box(name: str, x: float, y: float, width: float) -> list[str]:
    """A room: its name, what it is for, what it imports."""
    letters = int((width - 2 * GAP) / LETTER)
    said = {"": purpose(name), "below": f"imports {', '.join(imported(name)) or 'no other room'}"}
    lines = [("name", name), *((kind, line) for kind, text in said.items() for line in wrap(text, letters))]
    texts = [
        f'<text class="{kind}" x="{x + GAP:.0f}" y="{y + 20 + LINE * n:.0f}">{escape(line)}</text>'
        for n, (kind, line) in enumerate(lines)
    ]
    return [f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{HEIGHT}" rx="5"/>', *texts]


def floor(number: int, y: float) -> list[str]:
    """All rooms of a floor, side by side."""
    rooms = [name for name, level in FLOORS.items() if level == number]
    width = (WIDTH - LEFT - GAP * len(rooms)) / len(rooms)
    label = f'<text class="floor" x="{GAP}" y="{y + HEIGHT / 2 + 7:.0f}">{number}</text>'
    return [label, *(line for n, name in enumerate(rooms) for line in box(name, LEFT + n * (width + GAP), y, width))]


def picture() -> str:
    """The whole drawing, the highest floor on top."""
    numbers = sorted({level for name, level in FLOORS.items() if name != FRONT_DOOR}, reverse=True)
    height = GAP + len(numbers) * (HEIGHT + GAP)
    page = [HEAD % height, STYLE, f'<rect class="page" width="{WIDTH}" height="{height}"/>']
    drawn = [line for n, number in enumerate(numbers) for line in floor(number, GAP + n * (HEIGHT + GAP))]
    return "\n".join([*page, *drawn, "</svg>\n"])


if __name__ == "__main__":
    FILE.write_text(picture(), "utf-8")
