"""`unetfamily prune`: a smaller bundle of a trained UNet++."""

import argparse
from pathlib import Path

from monai_unetfamily.cli.options import Commands, add_bundle, add_device, add_trust, say, say_what_runs


def add_prune(commands: Commands) -> argparse.ArgumentParser:
    """Add the command."""
    command = commands.add_parser("prune", help="cut a trained UNet++ at a level: a smaller bundle")
    add_bundle(command)
    command.add_argument("--level", type=int, metavar="D", help="keep the nodes X[i, j] with i + j <= D")
    command.add_argument("--auto", action="store_true", help="keep the smallest level whose Dice is good enough")
    command.add_argument("--dataset", type=Path, help="time and evaluate every level on its validation cases")
    command.add_argument(
        "--tolerance",
        type=float,
        default=0.01,
        metavar="DICE",
        help="of --auto: mean Dice that may be lost to the last level (default: %(default)s)",
    )
    command.add_argument("-o", "--output", type=Path, required=True, metavar="NEW", help="new folder for the bundle")
    add_device(command)
    add_trust(command)
    command.set_defaults(run=_prune)
    return command


def _prune(options: argparse.Namespace) -> int:
    from monai_unetfamily.bundles import find_bundle
    from monai_unetfamily.training import format_levels, prune

    if options.auto == (options.level is not None):
        raise ValueError(f"got {'both' if options.auto else 'neither'} of --level and --auto; give one of the two.")
    bundle = find_bundle(options.bundle)
    if options.trust:
        say_what_runs(bundle)
    levels = prune(
        bundle,
        options.output,
        level=options.level,
        dataset=options.dataset,
        tolerance=options.tolerance,
        device=options.device,
        trust=options.trust,
        log=say,
    )
    print(f"{format_levels(levels)}\nbundle in {options.output}")
    return 0
