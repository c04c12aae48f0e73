"""The graph that is read off a network is the one its paper's equation defines; its drawing shows all of it."""

import re
from math import dist
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from monai_unetfamily.nets import list_networks
from monai_unetfamily.nets.unetplusplus import fan_in, grid
from monai_unetfamily.reporting import save_diagram, stage_rows, trace_graph
from monai_unetfamily.reporting.diagram import _CLEAR, _RADIUS, Edge, Graph, _arc, _bend, _places
from tests.support.tiers import sampled

pytestmark = pytest.mark.slow

MATPLOTLIB = r"(figure|axes|patch|line2d|text|legend)_\d+$"
WIDTHS = (4, 8, 8, 16, 16, 8, 4)


def trace(name: str, dims: int = 2, classes: int = 2, **options: Any) -> Graph:
    return trace_graph(name, spatial_dims=dims, in_channels=1, out_channels=classes, **options)


def inner(graph: Graph) -> set[Edge]:
    """The edges between nodes: all but those of the image and the logits."""
    return {edge for edge in graph.edges if edge.source != "image" and edge.target != "logits"}


def ends(graph: Graph) -> list[Edge]:
    return [edge for edge in graph.edges if edge not in inner(graph)]


def down_the_encoder(letter: str, N: int) -> set[Edge]:
    return {Edge(f"{letter}[{i - 1}]", f"{letter}[{i}]", "down", False) for i in range(1, N + 1)}


SEEN = {"unet_e": lambda j: [0], "unet_plus": lambda j: [j - 1], "unetplusplus": range}


@pytest.mark.parametrize("levels", sampled([1, 2, 3, 4, 6], 1, 3))
@pytest.mark.parametrize("name", SEEN)
def test_nested_grids_are_their_equation(name: str, levels: int) -> None:
    graph = trace(name, features=WIDTHS[: levels + 1])
    expected = {Edge(f"X[{i - 1},0]", f"X[{i},0]", "down", False) for i in range(1, levels + 1)}
    for i, j in grid(levels):
        if j > 0:
            expected |= {Edge(f"X[{i},{k}]", f"X[{i},{j}]", "same", True) for k in SEEN[name](j)}
            expected |= {Edge(f"X[{i + 1},{j - 1}]", f"X[{i},{j}]", "up", False)}
    assert inner(graph) == expected
    heads = range(1, levels + 1) if name == "unet_e" else [levels]  # the ensemble's output is the mean of all
    last = [Edge(f"X[0,{j}]", "logits", "same", False) for j in heads]
    assert ends(graph) == [Edge("image", "X[0,0]", "same", False), *last]


@pytest.mark.parametrize("name", SEEN)
def test_nested_grids_are_drawn_as_triangles(name: str) -> None:
    places = {node.name: (node.row, node.column) for node in trace(name, features=WIDTHS[:5]).nodes}
    assert places == {f"X[{i},{j}]": (i, i + 2 * j + 1) for i, j in grid(4)} | {"image": (0, 0), "logits": (0, 10)}


@pytest.mark.parametrize("upsample", ["transposed", "linear"])
@pytest.mark.parametrize(("name", "joined"), [("unet_e", "none"), ("unet_plus", "neighbours"), ("unetplusplus", "all")])
def test_channels_of_nested_grids(name: str, joined: str, upsample: str) -> None:
    channels = {node.name: (node.fan_in, node.width) for node in trace(name, upsample=upsample).nodes}
    widths = (32, 64, 128, 256, 512)
    for i, j in grid(4):
        assert channels[f"X[{i},{j}]"] == (fan_in(i, j, widths, 1, upsample, joined), widths[i])


@pytest.mark.parametrize("N", [1, 2, 4])
def test_unet_is_its_equation(N: int) -> None:
    coarser = {i: f"De[{i + 1}]" if i < N - 1 else f"En[{N}]" for i in range(N)}
    expected = down_the_encoder("En", N)
    expected |= {Edge(f"En[{i}]", f"De[{i}]", "same", True) for i in range(N)}
    expected |= {Edge(coarser[i], f"De[{i}]", "up", False) for i in range(N)}
    graph = trace("unet", features=WIDTHS[: N + 1])
    assert inner(graph) == expected
    assert ends(graph) == [Edge("image", "En[0]", "same", False), Edge("De[0]", "logits", "same", False)]


@pytest.mark.parametrize("N", [1, 2, 4])
def test_unet3plus_is_its_equation(N: int) -> None:
    """Every decoder node has one edge from each scale: N + 1 in all."""
    expected = down_the_encoder("En", N)
    for i in range(N):
        expected |= {Edge(f"En[{k}]", f"De[{i}]", "down", True) for k in range(i)}
        expected |= {Edge(f"En[{i}]", f"De[{i}]", "same", True)}
        expected |= {Edge(f"De[{k}]", f"De[{i}]", "up", k > i + 1) for k in range(i + 1, N)}
        expected |= {Edge(f"En[{N}]", f"De[{i}]", "up", i < N - 1)}
    graph = trace("unet3plus", features=WIDTHS[: N + 1], skip_channels=4)
    assert inner(graph) == expected
    for node in graph.nodes:
        if node.name.startswith("De"):
            assert node.fan_in == node.width == 4 * (N + 1)
            assert sum(edge.target == node.name for edge in graph.edges) == N + 1


@pytest.mark.parametrize("skips", [0, 1, 2])
def test_fcn_is_its_equation(skips: int) -> None:
    expected = down_the_encoder("En", 5) | {Edge("En[5]", "S[5]", "same", False)}
    for i in range(5 - skips, 5):
        expected |= {Edge(f"En[{i - 1}]", f"S[{i}]", "down", True), Edge(f"S[{i + 1}]", f"S[{i}]", "up", False)}
    graph = trace(["fcn32s", "fcn16s", "fcn8s"][skips])
    assert inner(graph) == expected
    assert graph.edges[-1] == Edge(f"S[{5 - skips}]", "logits", "up", False)


def test_the_guide_gates_the_logits() -> None:
    graph = trace("unet3plus", features=(4, 8, 8), skip_channels=4, cgm=True)
    assert ends(graph)[1:] == [Edge("En[2]", "logits", "guide", False), Edge("De[0]", "logits", "same", False)]


HEADS = [
    ("fcn8s", {}, {"S[3]"}),
    ("fcn8s", {"deep_supervision": True}, {"S[3]", "S[4]", "S[5]"}),
    ("unet", {"deep_supervision": True}, {f"De[{i}]" for i in range(4)}),
    ("unet_e", {}, {f"X[0,{j}]" for j in range(1, 5)}),
    ("unetplusplus", {}, {"X[0,4]"}),
    ("unetplusplus", {"deep_supervision": True}, {f"X[0,{j}]" for j in range(1, 5)}),
    ("unet3plus", {"deep_supervision": True, "cgm": True}, {"En[4]", *(f"De[{i}]" for i in range(4))}),
]


@pytest.mark.parametrize(("name", "options", "read"), HEADS, ids=[f"{name} {len(read)}" for name, _, read in HEADS])
def test_heads_read_what_the_papers_supervise(name: str, options: dict[str, Any], read: set[str]) -> None:
    assert {node.name for node in trace(name, **options).nodes if node.supervised} == read


@pytest.mark.parametrize("preset", sampled([None, "paper"], None))
@pytest.mark.parametrize("name", list_networks())
def test_every_graph_has_a_place_for_each_node_and_runs_to_the_right(name: str, preset: str | None) -> None:
    graph = trace(name, preset=preset)
    nodes = {node.name: node for node in graph.nodes}
    assert len({(node.row, node.column) for node in graph.nodes}) == len(nodes) == len(graph.nodes)
    assert all(nodes[edge.source].column < nodes[edge.target].column for edge in graph.edges)
    assert {edge.target for edge in graph.edges} == set(nodes) - {"image"}
    assert {edge.source for edge in graph.edges} == set(nodes) - {"logits"}
    assert graph.strides == [(2**i,) * 2 for i in range(len(graph.strides))]
    assert sum(bool(cell) for row in stage_rows(graph)[1:] for cell in row[2:]) == len(nodes) - 2


def test_a_row_is_a_grid_whatever_its_strides() -> None:
    graph = trace("unet", 3, features=(4, 8, 8), strides=[(1, 2, 2), 2])
    assert graph.strides == [(1, 1, 1), (1, 2, 2), (2, 4, 4)]


def supervised(name: str) -> Graph:
    """The fullest picture: every head, and the guide."""
    return trace(name, deep_supervision=True, **{"cgm": True} if name == "unet3plus" else {})


@pytest.mark.parametrize("name", list_networks())
def test_no_edge_crosses_a_node(name: str) -> None:
    graph = supervised(name)
    places = _places(graph)
    for edge in graph.edges:
        arc = _arc(places[edge.source], places[edge.target], _bend(places, edge))
        others = [place for node, place in places.items() if node not in edge[:2]]
        assert min(dist(point, place) for point in arc for place in others) > _RADIUS + _CLEAR / 2


@pytest.mark.parametrize("name", sampled(list_networks(), "unet3plus"))
def test_a_drawing_shows_every_node_and_edge_and_is_the_same_each_time(name: str, tmp_path: Path) -> None:
    graph = supervised(name)
    for file in ("a.svg", "b.svg", "a.png", "b.png"):
        save_diagram(graph, tmp_path / file)
    svg = (tmp_path / "a.svg").read_bytes()
    assert svg == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert drawn(svg.decode()) == wanted(graph)
    assert len(list(tmp_path.iterdir())) == 4


def wanted(graph: Graph) -> set[str]:
    ids = {node.name: re.sub(r"[\[,]", "_", node.name).rstrip("]") for node in graph.nodes}
    kinds = [(edge, "skip" if edge.skip else edge.direction) for edge in graph.edges]
    return set(ids.values()) | {f"{ids[edge.source]}-{kind}-{ids[edge.target]}" for edge, kind in kinds}


def drawn(svg: str) -> set[str]:
    """The ids of nodes and edges in an SVG, less those that matplotlib gives."""
    groups = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}g")
    return {group.attrib["id"] for group in groups if not re.match(MATPLOTLIB, group.get("id", "text_0"))}


def test_a_drawing_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unet.pdf: .* \.svg or \.png"):
        save_diagram(trace("unet"), tmp_path / "unet.pdf")
    assert list(tmp_path.iterdir()) == []
