"""`unetfamily phantom`: CT-like phantoms with exact labels."""

import argparse
from pathlib import Path

from monai_unetfamily.cli.options import Commands


def add_phantom(commands: Commands) -> argparse.ArgumentParser:
    """Add the command."""
    command = commands.add_parser("phantom", help="make CT-like abdominal volumes, or slices, with exact labels")
    command.add_argument("output", type=Path, help="new folder, filled in MSD layout")
    command.add_argument("-n", type=int, required=True, metavar="N", help="number of cases")
    command.add_argument("--pictures", action="store_true", help="axial slices as 8-bit PNG, not volumes as NIfTI")
    command.add_argument("--seed", type=int, default=0, help="the same seed gives the same voxels (default: 0)")
    command.add_argument(
        "--size", type=int, nargs=3, default=(160, 128, 40), metavar="VOXELS", help="(default: 160 128 40)"
    )
    command.add_argument(
        "--spacing", type=float, nargs=3, default=(2.0, 2.0, 5.0), metavar="MM", help="(default: 2 2 5)"
    )
    command.set_defaults(run=_phantom)
    return command


def _phantom(options: argparse.Namespace) -> int:
    from monai_unetfamily.data.phantom import write_phantom_images2d, write_phantoms

    write = write_phantom_images2d if options.pictures else write_phantoms
    write(options.output, options.n, options.seed, shape=tuple(options.size), spacing=tuple(options.spacing))
    print(f"{options.n} phantoms in {options.output}")
    return 0
