"""`unetfamily export`: a bundle's network as ONNX, torch.export or TorchScript."""

import argparse
from pathlib import Path

from monai_unetfamily.cli.options import Commands, add_bundle, add_trust, say_what_runs

FORM_NAMES = ("onnx", "torch-export", "torchscript")  # FORMS of bundles/export.py, for --help without torch


def add_export(commands: Commands) -> argparse.ArgumentParser:
    """Add the command."""
    command = commands.add_parser("export", help="a bundle's network for use without Python, checked against it")
    add_bundle(command)
    command.add_argument("--to", choices=FORM_NAMES, required=True, help="the form; onnx needs the extra `export`")
    command.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="new file (default: NAME.onnx, .pt2 or .ts, here)"
    )
    add_trust(command)
    command.set_defaults(run=_export)
    return command


def _export(options: argparse.Namespace) -> int:
    from monai_unetfamily.bundles import FORMS, export_network, find_bundle

    bundle = find_bundle(options.bundle)
    file = options.output or Path(f"{bundle.resolve().name}{FORMS[options.to].suffix}")
    if options.trust:
        say_what_runs(bundle)
    difference = export_network(bundle, options.to, file, trust=options.trust)
    print(f"{file}: logits of windows, within {difference:.0e} of the largest; the bundle's metadata is inside")
    return 0
