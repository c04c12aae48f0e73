"""`unetfamily plan`: a data set's bundle."""

import argparse
import shlex
from pathlib import Path

from monai_unetfamily.cli.options import Commands, add_device, say


def add_plan(commands: Commands) -> argparse.ArgumentParser:
    """Add the command."""
    command = commands.add_parser("plan", help="check a data set, and write the bundle that fits it")
    command.add_argument(
        "dataset",
        type=Path,
        help="folder in the layout of the Decathlon (MSD), of nnU-Net, or with images/ and labels/",
    )
    command.add_argument("-o", "--output", type=Path, required=True, metavar="BUNDLE", help="new folder for the bundle")
    command.add_argument("--network", help="this member of the family (default: by the rules)")
    command.add_argument("--memory", type=float, metavar="GB", help="of the GPU that will train (default: 8)")
    command.add_argument("--minutes", type=float, help="of training (default: epochs rule)")
    command.add_argument(
        "--spatial-dims", type=int, choices=(2, 3), help="2 on volumes: slices with neighbours (default: by the rules)"
    )
    command.add_argument("--features", type=int, nargs="+", metavar="WIDTH", help="of the stages, finest first")
    command.add_argument(
        "--hu", type=float, nargs=2, metavar=("LOW", "HIGH"), help="clip CT to these (default: by the labelled voxels)"
    )
    add_device(command)
    command.set_defaults(run=_plan)
    return command


def _plan(options: argparse.Namespace) -> int:
    from monai_unetfamily.planning import plan_dataset

    names = ("network", "minutes", "spatial_dims", "features", "device")
    how = {name: getattr(options, name) for name in names}
    hu = tuple(options.hu) if options.hu else None
    plan_dataset(options.dataset, options.output, memory_gb=options.memory, hu=hu, log=say, **how)
    command = shlex.join(["unetfamily", "train", str(options.output), "--dataset", str(options.dataset)])
    print(f"bundle in {options.output}; train it: {command}")
    return 0
