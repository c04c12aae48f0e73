"""`unetfamily compare`: which network is worth its cost on a data set."""

import argparse
from pathlib import Path

from monai_unetfamily.cli.options import Commands, add_device, say


def add_compare(commands: Commands) -> argparse.ArgumentParser:
    """Add the command."""
    command = commands.add_parser(
        "compare", help="train the family, and MONAI's networks, alike; say which is worth it"
    )
    command.add_argument(
        "dataset",
        type=Path,
        help="folder in the layout of MSD or of nnU-Net, or with images/ and labels/",
    )
    command.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="folder for everything; the same again goes on"
    )
    command.add_argument("--networks", default="all", metavar="NAME,...", help="all, or some (default: %(default)s)")
    command.add_argument("--minutes-each", type=float, required=True, metavar="M", help="of training")
    several = command.add_mutually_exclusive_group()
    several.add_argument("--folds", type=int, metavar="K", help="train each on the first K folds")
    several.add_argument("--seeds", type=int, default=1, metavar="S", help="train each S times (default: 1)")
    command.add_argument("--spatial-dims", type=int, choices=(2, 3), help="(default: by the planner's rules)")
    command.add_argument("--memory", type=float, metavar="GB", help="of the GPU that trains, for the planner")
    command.add_argument("--features", type=int, nargs="+", metavar="WIDTH", help="of the stages, for the planner")
    command.add_argument("--bundle", metavar="BUNDLE", help="compare by this one's recipe, not by a planned one")
    add_device(command)
    command.set_defaults(run=_compare)
    return command


def _compare(options: argparse.Namespace) -> int:
    from monai_unetfamily.bundles import find_bundle
    from monai_unetfamily.comparison import compare

    names = ("minutes_each", "folds", "seeds", "spatial_dims", "features", "device")
    comparison = compare(
        options.dataset,
        options.output,
        networks=options.networks.split(","),
        memory_gb=options.memory,
        bundle=find_bundle(options.bundle) if options.bundle else None,
        log=say,
        **{name: getattr(options, name) for name in names},
    )
    return 1 if comparison.failures else 0
