"""`unetfamily networks`: what each network costs and how far it sees, and its diagram."""

import argparse
from pathlib import Path
from typing import Any

from monai_unetfamily.cli.options import Commands


def add_networks(commands: Commands) -> argparse.ArgumentParser:
    """Add the command."""
    command = commands.add_parser("networks", help="what each network costs and how far it sees; its diagram")
    command.add_argument("name", nargs="?", metavar="NAME", help="this one alone, with its nodes (default: all)")
    command.add_argument("--diagram", metavar="NAME", help="draw this one's nodes and skips instead")
    command.add_argument("-o", "--output", type=Path, help="the diagram, .svg or .png (default: NAME.svg)")
    command.add_argument(
        "--size", type=int, nargs="+", default=[96, 96, 96], metavar="VOXELS", help="2 or 3 axes (default: 96 96 96)"
    )
    command.add_argument("--in-channels", type=int, default=1, metavar="N", help="(default: 1)")
    command.add_argument("--out-channels", type=int, default=2, metavar="N", help="(default: 2)")
    command.add_argument(
        "--preset", choices=["default", "paper"], help="(default: a row of each; a diagram of default)"
    )
    command.add_argument(
        "--set", nargs="+", default=[], metavar="OPTION=VALUE", help="of create_network: 'features=[16, 32, 64]'"
    )
    command.set_defaults(run=_networks)
    return command


def _networks(options: argparse.Namespace) -> int:
    if options.diagram and options.name:
        raise ValueError(f"got NAME {options.name} and --diagram {options.diagram}; one of the two is allowed.")
    if options.output and not options.diagram:
        raise ValueError(f"got -o {options.output} without --diagram; only a diagram is written to a file: add it.")
    return _draw_network(options) if options.diagram else _list_networks(options)


def _draw_network(options: argparse.Namespace) -> int:
    from monai_unetfamily.reporting import save_diagram, trace_graph

    output = options.output or Path(f"{options.diagram}.svg")
    preset = "paper" if options.preset == "paper" else None
    save_diagram(trace_graph(options.diagram, spatial_dims=len(options.size), preset=preset, **_of(options)), output)
    print(f"diagram of {options.diagram} in {output}")
    return 0


def _list_networks(options: argparse.Namespace) -> int:
    from monai_unetfamily.evaluation import align
    from monai_unetfamily.nets import list_networks, profile_network, profile_rows
    from monai_unetfamily.reporting import stage_rows, trace_graph

    presets = {None: (None, "paper"), "default": (None,), "paper": ("paper",)}[options.preset]
    names = [options.name] if options.name else list_networks()
    pairs, arguments = [(name, preset) for name in names for preset in presets], _of(options)
    print(align(profile_rows([profile_network(name, size=options.size, preset=p, **arguments) for name, p in pairs])))
    if options.name:
        graphs = [trace_graph(name, spatial_dims=len(options.size), preset=p, **arguments) for name, p in pairs]
        for table in dict.fromkeys(align(stage_rows(graph)) for graph in graphs):
            print(f"\n{table}")
    return 0


def _of(options: argparse.Namespace) -> dict[str, Any]:
    """The network's arguments."""
    from monai_unetfamily.nets import read_options

    return {"in_channels": options.in_channels, "out_channels": options.out_channels, **read_options(options.set)}
