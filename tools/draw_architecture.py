"""Draw the packages in their layers, from what their files import: `python -m tools.draw_architecture` in the checkout.

The layers are those of tests/test_architecture.py, which verifies that imports only go down; a package is described by
the first paragraph of its docstring. It writes docs/images/architecture.svg.
"""

import ast
from html import escape
from pathlib import Path
from textwrap import wrap

from tests.test_architecture import FILES, LAYERS, ROOT, ROOT_INTERFACE, Source, layer_of

FILE = ROOT / "docs/images/architecture.svg"
WIDTH, GAP, LINE, LETTER = 960, 12, 16, 6.6  # pixels: of the drawing, between boxes, from line to line, a letter
HEAD = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} %d" font-family="sans-serif" font-size="12.5">'
STYLE = """<style>
  text { fill: #1a1c1f } .name { font-size: 15px; font-weight: bold } .imports { fill: #5b6470 }
  rect { fill: #eef3f8; stroke: #5b7fa6 } .page { fill: #ffffff; stroke: none }
</style>"""


def source(file: Path) -> Source:
    """Return the file with its dotted name."""
    return Source(".".join(file.relative_to(ROOT).with_suffix("").parts), file.read_text("utf-8"))


def imported(name: str) -> list[str]:
    """Return the packages that a package's files import, highest layer first."""
    own = [source(file) for file in FILES if layer_of(source(file).module) == name]
    ours = [item for file in own for _, item in file.imports if item.partition(".")[0] == "monai_unetfamily"]
    packages = {layer_of(item) for item in ours} & set(LAYERS) - {name, ROOT_INTERFACE}
    return sorted(packages, key=lambda item: (-LAYERS[item], item))


def purpose(name: str) -> str:
    """Return the first paragraph of the package's docstring."""
    file = ROOT / (name if name == "napari_plugin" else f"monai_unetfamily/{name}") / "__init__.py"
    text = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or ""
    return text.split("\n\n")[0].replace("\n", " ").replace("`", "")


def lines_of(name: str, width: float) -> list[tuple[str, str]]:
    """Return the lines of a box, each with its class: name, purpose, imports."""
    letters = int((width - 2 * GAP) / LETTER)
    parts = {"": purpose(name), "imports": f"imports {', '.join(imported(name)) or 'no other package'}"}
    return [("name", name), *((kind, line) for kind, text in parts.items() for line in wrap(text, letters))]


def draw_layer(number: int, y: float) -> tuple[list[str], float]:
    """Return all packages of a layer, side by side, and their height in pixels."""
    packages = [name for name, layer in LAYERS.items() if layer == number]
    width = (WIDTH - GAP * (len(packages) + 1)) / len(packages)
    texts = [lines_of(name, width) for name in packages]
    height = GAP + LINE * max(len(lines) for lines in texts)
    drawn = []
    for place, lines in enumerate(texts):
        x = GAP + place * (width + GAP)
        drawn.append(f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{height:.0f}" rx="5"/>')
        drawn += [
            f'<text class="{kind}" x="{x + GAP:.0f}" y="{y + LINE * (n + 1):.0f}">{escape(line)}</text>'
            for n, (kind, line) in enumerate(lines)
        ]
    return drawn, height


def picture() -> str:
    """Return the whole drawing, the highest layer on top."""
    drawn, y = [], float(GAP)
    for number in sorted({layer for name, layer in LAYERS.items() if name != ROOT_INTERFACE}, reverse=True):
        layer, height = draw_layer(number, y)
        drawn += layer
        y += height + GAP
    page = [HEAD % y, STYLE, f'<rect class="page" width="{WIDTH}" height="{y:.0f}"/>']
    return "\n".join([*page, *drawn, "</svg>\n"])


if __name__ == "__main__":
    FILE.write_text(picture(), "utf-8")
