"""`unetfamily demo`: the shipped bundles on phantoms and on a brain template."""

import argparse
from pathlib import Path

from monai_unetfamily.cli.options import Commands, add_device, say


def add_demo(commands: Commands) -> argparse.ArgumentParser:
    """Add the command."""
    command = commands.add_parser("demo", help="the shipped bundles at work, on phantoms and on a template")
    command.add_argument(
        "-o", "--output", type=Path, default=Path("demo_output"), help="folder for everything it makes"
    )
    add_device(command)
    command.set_defaults(run=_demo)
    return command


def _demo(options: argparse.Namespace) -> int:
    from monai_unetfamily.demo import run_demo

    run_demo(options.output, device=options.device, log=say)
    return 0
