"""Trace the graph of a network, and draw it as its paper does."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from math import dist, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from monai_unetfamily.io import atomic_file
from monai_unetfamily.nets import MEMBERS, create_network

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The graph of a member's nodes, read off the network while it runs.
#
# A tensor carries the names of the nodes that it was made of. What enters a node is what its edges bring; what leaves
# it is made of that node alone. So the graph is the network's own: pooling, upsampling and branches become edges,
# whoever computes them.


IMAGE, LOGITS = "image", "logits"


class Node(NamedTuple):
    """A node of the paper's graph, or the image, or the logits.

    Attributes:
        name: as in the equations: "X[0,1]", "En[2]".
        row: its grid; 0 is the image's.
        column: edges on the longest way from the image.
        fan_in: channels that enter; none are counted for the image and the logits.
        width: channels that leave.
        supervised: whether a head reads it in training.
    """

    name: str
    row: int
    column: int
    fan_in: int
    width: int
    supervised: bool


class Edge(NamedTuple):
    """Maps that flow from one node to another.

    Attributes:
        source, target: names of nodes.
        direction: "down" to a coarser grid, "up" to a finer one, "same" on one; "guide" for numbers without a grid.
        skip: whether, between two grids, a longer way joins the nodes too; on one grid, others reach the target too.
    """

    source: str
    target: str
    direction: str
    skip: bool


class Graph(NamedTuple):
    """A member's nodes, each one after its sources; its edges; and each row's stride, in voxels of the image."""

    name: str
    nodes: list[Node]
    edges: list[Edge]
    strides: list[tuple[int, ...]]


def trace_graph(
    name: str, *, spatial_dims: int, in_channels: int, out_channels: int, preset: str | None = None, **options: Any
) -> Graph:
    """Read the graph off a member of the family; `create_network` documents the arguments.

    The network runs on meta tensors, which costs next to nothing: in `eval()` for nodes and edges, in `train()` for the
    heads.

    Raises:
        ValueError: for a name or an option that does not exist; the message lists those that do.

    >>> graph = trace_graph("unetplusplus", spatial_dims=2, in_channels=1, out_channels=2, features=(4, 8))
    >>> [node.name for node in graph.nodes]
    ['image', 'X[0,0]', 'X[1,0]', 'X[0,1]', 'logits']
    >>> for edge in graph.edges[2:4]:
    ...     print(*edge)
    X[0,0] X[0,1] same True
    X[1,0] X[0,1] up False
    """
    with torch.device("meta"):
        network = create_network(
            name,
            spatial_dims=spatial_dims,
            in_channels=in_channels,
            out_channels=out_channels,
            preset=preset,
            **options,
        )
        strides = MEMBERS[name].strides(spatial_dims, preset, options)
        x = torch.zeros(1, in_channels, *(2 * prod(s[axis] for s in strides) for axis in range(spatial_dims)))
    run, logits = _run(network.eval(), name, x)
    run.visit(LOGITS, logits)
    training, heads = _run(network.train(), name, x)
    supervised = {s.node for head in tree_leaves(heads) for s in training.sources(head) if not s.numbers}
    return _graph(name, run.visits, supervised)


def stage_rows(graph: Graph) -> list[list[str]]:
    """A table with a row for each grid and a cell for each of its nodes: the channels that enter and leave it.

    >>> graph = trace_graph("unet", spatial_dims=2, in_channels=1, out_channels=2, features=(4, 8))
    >>> for row in stage_rows(graph):
    ...     print(row)
    ['grid', 'stride', 'nodes: channels in > out', '']
    ['0', '1 x 1', 'En[0] 1 > 4', 'De[0] 8 > 4']
    ['1', '2 x 2', 'En[1] 4 > 8', '']
    """
    blocks = sorted((node for node in graph.nodes if node.name not in (IMAGE, LOGITS)), key=lambda node: node.column)
    rows = [
        [f"{node.name} {node.fan_in} > {node.width}" for node in blocks if node.row == row]
        for row in range(len(graph.strides))
    ]
    longest = max(map(len, rows))
    return [
        ["grid", "stride", "nodes: channels in > out", *[""] * (longest - 1)],
        *(
            [str(row), " x ".join(map(str, stride)), *cells, *[""] * (longest - len(cells))]
            for row, (stride, cells) in enumerate(zip(graph.strides, rows, strict=True))
        ),
    ]


class _Source(NamedTuple):
    """What a tensor is made of: a node, and whether its maps became numbers without a grid on the way."""

    node: str
    numbers: bool = False


@dataclass
class _Visit:
    """A node when it was computed."""

    sources: frozenset[_Source]
    fan_in: int = 0
    grid: tuple[int, ...] = ()
    width: int = 0


class _Provenance(TorchDispatchMode):
    """Follows every tensor back to the nodes that it was made of."""

    def __init__(self) -> None:
        super().__init__()
        self.visits: dict[str, _Visit] = {}
        self._sources: dict[int, tuple[Tensor, frozenset[_Source]]] = {}  # by id: kept, so that none comes twice

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        sources = self.sources(args, kwargs)
        for tensor in _tensors(result):
            made_of = {_Source(node, numbers or tensor.ndim < 3) for node, numbers in sources}
            self._sources[id(tensor)] = tensor, frozenset(made_of)
        return result

    def sources(self, *values: Any) -> frozenset[_Source]:
        """What the tensors among `values` are made of."""
        known = (self._sources.get(id(tensor)) for tensor in _tensors(values))
        return frozenset().union(*(entry[1] for entry in known if entry))

    def enter(self, name: str, _: nn.Module, maps: tuple[Any, ...]) -> None:
        """Begin a node: a module's hook."""
        self.visits[name] = _Visit(self.sources(maps), sum(x.shape[1] for x in _tensors(maps)))

    def leave(self, name: str, _: nn.Module, __: Any, result: Tensor) -> None:
        """End a node: a module's hook."""
        self.visit(name, result)
        self._sources[id(result)] = result, frozenset([_Source(name)])

    def visit(self, name: str, result: Tensor) -> None:
        """Note what leaves a node."""
        visit = self.visits.setdefault(name, _Visit(self.sources(result)))
        visit.grid, visit.width = tuple(result.shape[2:]), result.shape[1]


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _run(network: nn.Module, name: str, x: Tensor) -> tuple[_Provenance, Any]:
    """Run the network, and return what was followed and its output."""
    provenance = _Provenance()
    provenance.leave(IMAGE, network, (), x)
    with ExitStack() as hooks, torch.no_grad(), provenance:
        for nodes in MEMBERS[name].nodes:
            for key, block in getattr(network, nodes).named_children():
                node = f"{nodes}[{key.replace('_', ',')}]"
                hooks.enter_context(block.register_forward_pre_hook(partial(provenance.enter, node)))
                hooks.enter_context(block.register_forward_hook(partial(provenance.leave, node)))
        return provenance, network(x)


def _graph(name: str, visits: dict[str, _Visit], supervised: set[str]) -> Graph:
    image = visits[IMAGE].grid
    strides = {node: tuple(a // b for a, b in zip(image, visit.grid, strict=True)) for node, visit in visits.items()}
    rows = sorted(set(strides.values()), key=lambda stride: (prod(stride), stride))
    columns: dict[str, int] = {}
    for node, visit in visits.items():
        columns[node] = max((columns[source] + 1 for source, _ in visit.sources), default=0)
    nodes = [
        Node(node, rows.index(strides[node]), columns[node], visit.fan_in, visit.width, node in supervised)
        for node, visit in visits.items()
    ]
    return Graph(name, nodes, _edges(nodes, visits), rows)


def _edges(nodes: list[Node], visits: dict[str, _Visit]) -> list[Edge]:
    edges: list[Edge] = []
    before: dict[str, set[str]] = {}  # nodes on any way to a node
    for target in nodes:
        sources = visits[target.name].sources
        names = {name for name, _ in sources}
        before[target.name] = names.union(*(before[name] for name in names))
        for source in nodes:
            others = names - {source.name} if target.name != LOGITS else set()
            longer = any(source.name in before[other] for other in others)
            direction = _direction(target.row - source.row)
            if _Source(source.name) in sources:
                edges.append(Edge(source.name, target.name, direction, bool(others if direction == "same" else longer)))
            if _Source(source.name, numbers=True) in sources:
                edges.append(Edge(source.name, target.name, "guide", False))
    return edges


def _direction(rows_down: int) -> str:
    return "down" if rows_down > 0 else "up" if rows_down < 0 else "same"


# A member's graph drawn as its paper draws it: a row for each grid, every way from left to right.

Point = tuple[float, float]  # inches from the image's node, y up

_COLUMN, _ROW, _RADIUS, _CLEAR = 0.74, 1.0, 0.26, 0.09  # inches
_LEFT, _EDGE, _LEGEND = 0.95, 0.2, 0.45
_INK, _FAINT, _BAND, _WAY, _BESIDE, _HEAD = "#20262e", "#6b7480", "#f4f5f7", "#dfeaf5", "#fdeedd", "#2f8f5b"
_COLORS = {"down": "#c8501e", "up": "#1f6fb2", "same": "#4d5965", "guide": "#a67c00"}
_WORDS = {"down": "to a coarser grid", "up": "to a finer grid", "same": "on one grid", "guide": "guide"}
_DASHES: dict[str, Any] = {"skip": (0, (3.0, 1.5)), "guide": (0, (1.0, 1.2))}  # offset, (on, off) in line widths
_BEND = {"down": (0.0, 0.0), "same": (0.18, 0.025), "up": (0.15, 0.075)}  # as wanted, and more for each inch of chord
_STYLE = {"svg.hashsalt": "unetfamily", "mathtext.fontset": "stix", "font.size": 9.0}


def save_diagram(graph: Graph, path: Path) -> None:
    """Draw a graph to an SVG or a PNG, whichever the name ends in; the same graph gives the same bytes.

    A circle is a node with its channels; a dot on it is a head that is trained. In an SVG each has the id of its node
    or edge: `X_0_1`, `X_0_0-skip-X_0_1`. The file appears whole or not at all.

    Raises:
        ValueError: the name ends in neither.

    >>> from tempfile import TemporaryDirectory
    >>> from monai_unetfamily.reporting import trace_graph
    >>> graph = trace_graph("unet", spatial_dims=2, in_channels=1, out_channels=2, features=(4, 8))
    >>> with TemporaryDirectory() as folder:
    ...     save_diagram(graph, Path(folder) / "unet.svg")
    ...     'id="En_0-skip-De_0"' in (Path(folder) / "unet.svg").read_text()
    True
    """
    from matplotlib import style

    suffix = path.suffix.lower()
    if suffix not in (".svg", ".png"):
        raise ValueError(f"{path}: a diagram is written as .svg or .png: name such a file")
    stream = BytesIO()
    with style.context(["default", _STYLE]):
        metadata = {"Date": None} if suffix == ".svg" else {}
        _draw(graph).savefig(stream, format=suffix[1:], metadata=metadata)
    with atomic_file(path) as file:
        file.write(stream.getvalue())


def _draw(graph: Graph) -> "Figure":
    from matplotlib.figure import Figure

    places = _places(graph)
    bends = {edge: _bend(places, edge) for edge in graph.edges}
    points = [point for edge, bend in bends.items() for point in _arc(places[edge.source], places[edge.target], bend)]
    left, right = -_LEFT, max(x for x, _ in points) + _RADIUS + _EDGE
    low, high = min(y for _, y in points) - _RADIUS - _EDGE - _LEGEND, max(y for _, y in points) + _RADIUS + _EDGE
    figure = Figure(figsize=(right - left, high - low), dpi=150, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(left, right), ylim=(low, high))
    axes.set_axis_off()
    for row, stride in enumerate(graph.strides):
        _draw_row(axes, row, stride)
    for edge, bend in bends.items():
        _draw_edge(axes, edge, places[edge.source], places[edge.target], bend)
    on_the_way = {name for edge in graph.edges if edge.direction == "down" and not edge.skip for name in edge[:2]}
    trained = sum(node.supervised for node in graph.nodes) > 1
    for node in graph.nodes:
        _draw_node(axes, node, places[node.name], node.name in on_the_way, node.supervised and trained)
    handles = _handles(graph, trained)
    figure.legend(handles=handles, loc="lower center", ncols=len(handles), frameon=False, fontsize=7.5, labelcolor=_INK)
    return figure


def _places(graph: Graph) -> dict[str, Point]:
    return {node.name: (node.column * _COLUMN, -node.row * _ROW) for node in graph.nodes}


def _bend(places: dict[str, Point], edge: Edge) -> float:
    """How far an edge leaves the straight line, so as to be clear of every other node; to the right is positive."""
    start, end = places[edge.source], places[edge.target]
    others = [place for name, place in places.items() if name not in edge[:2]]
    direction = "up" if end[1] > start[1] else "down" if end[1] < start[1] else "same"
    base, by_length = _BEND[direction]
    wanted = base + by_length * dist(start, end)
    outward = 1 if direction == "up" else -1  # around the decoder's arm, and over a row
    bends = sorted((step / 50 for step in range(1, 50)), key=lambda bend: abs(bend - wanted))
    for bend in (0.0, *(outward * bend for bend in bends)):
        if all(dist(point, place) >= _RADIUS + _CLEAR for point in _arc(start, end, bend) for place in others):
            return bend
    return outward * wanted


def _arc(start: Point, end: Point, bend: float) -> list[Point]:
    """Points of matplotlib's `arc3`: a parabola whose middle is bend / 2 chords to the right of the straight line."""
    (x0, y0), (x1, y1) = start, end
    x, y = (x0 + x1) / 2 + bend * (y1 - y0), (y0 + y1) / 2 - bend * (x1 - x0)
    steps = [step / 40 for step in range(41)]
    return [
        ((1 - t) ** 2 * x0 + 2 * t * (1 - t) * x + t**2 * x1, (1 - t) ** 2 * y0 + 2 * t * (1 - t) * y + t**2 * y1)
        for t in steps
    ]


def _draw_row(axes: "Axes", row: int, stride: tuple[int, ...]) -> None:
    from matplotlib.patches import Rectangle

    left, right = axes.get_xlim()
    if row % 2 == 0:
        band = Rectangle(
            (left, -(row + 0.5) * _ROW), right - left, _ROW, color=_BAND, linewidth=0, zorder=0, clip_on=False
        )
        axes.add_patch(band)
    text = f"stride {stride[0]}" if len(set(stride)) == 1 else "stride " + " x ".join(map(str, stride))
    axes.text(left + 0.12, -row * _ROW, text, color=_FAINT, fontsize=7.5, va="center")


def _draw_edge(axes: "Axes", edge: Edge, start: Point, end: Point, bend: float) -> None:
    from matplotlib.patches import FancyArrowPatch

    kind = "skip" if edge.skip else edge.direction
    arrow = FancyArrowPatch(
        start,
        end,
        connectionstyle=f"arc3,rad={bend}",
        arrowstyle="-|>,head_length=3.4,head_width=1.7",
        shrinkA=72 * _RADIUS + 1,
        shrinkB=72 * _RADIUS + 1.5,
        color=_COLORS[edge.direction],
        linestyle=_DASHES.get(kind, "-"),
        linewidth=1.1,
        zorder=1,
        clip_on=False,
    )
    arrow.set_gid(f"{_id(edge.source)}-{kind}-{_id(edge.target)}")
    axes.add_patch(arrow)


def _draw_node(axes: "Axes", node: Node, place: Point, on_the_way: bool, trained: bool) -> None:
    from matplotlib.patches import Circle

    x, y = place
    ground = "white" if node.name in (IMAGE, LOGITS) else _WAY if on_the_way else _BESIDE
    circle = Circle(place, _RADIUS, facecolor=ground, edgecolor=_INK, linewidth=0.9, zorder=2, clip_on=False)
    circle.set_gid(_id(node.name))
    axes.add_patch(circle)
    centred: dict[str, Any] = {"ha": "center", "va": "center", "zorder": 3}
    size = 7.5 if node.name in (IMAGE, LOGITS) else 10
    axes.text(x, y + 0.055, _letters(node.name), color=_INK, fontsize=size, **centred)
    axes.text(x, y - 0.125, str(node.width), color=_FAINT, fontsize=6.5, **centred)
    if trained:
        dot = Circle(
            (x, y + _RADIUS), 0.055, facecolor=_HEAD, edgecolor="white", linewidth=0.8, zorder=4, clip_on=False
        )
        axes.add_patch(dot)


def _handles(graph: Graph, trained: bool) -> "list[Artist]":
    """What the legend explains: the lines and dots that there are."""
    from matplotlib.lines import Line2D

    directions = {edge.direction for edge in graph.edges}
    lines = [(_COLORS[direction], direction, words) for direction, words in _WORDS.items() if direction in directions]
    lines += [(_INK, "skip", "skip")] * any(edge.skip for edge in graph.edges)
    handles: list[Artist] = [
        Line2D([], [], color=color, linestyle=_DASHES.get(kind, "-"), linewidth=1.1, label=words)
        for color, kind, words in lines
    ]
    if trained:
        handles.append(
            Line2D([], [], color=_HEAD, marker="o", markersize=5, linestyle="none", label="head in training")
        )
    return handles


def _letters(name: str) -> str:
    """Set "X[0,1]" as the papers do: the letter, and its indices above."""
    symbol, _, indices = name.rstrip("]").partition("[")
    letter = symbol if len(symbol) == 1 else rf"\mathrm{{{symbol}}}"
    return rf"${letter}^{{{indices}}}$" if indices else name


def _id(name: str) -> str:
    return name.rstrip("]").replace("[", "_").replace(",", "_")
