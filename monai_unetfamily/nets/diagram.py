"""The graph of a member's nodes, read off the network while it runs.

A tensor carries the names of the nodes that it was made of. What enters a node is what its edges bring; what leaves it
is made of that node alone. So the graph is the network's own: pooling, upsampling and branches become edges, whoever
computes them.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from monai_unetfamily.nets.blocks import Axes
from monai_unetfamily.nets.registry import MEMBERS, create_network

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
    strides: list[Axes]


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
    grid: Axes = ()
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
        for room in MEMBERS[name].nodes:
            for key, block in getattr(network, room).named_children():
                node = f"{room}[{key.replace('_', ',')}]"
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
