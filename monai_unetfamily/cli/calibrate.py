"""`unetfamily calibrate`: presence thresholds of a guided network."""

import argparse
from pathlib import Path

from monai_unetfamily.cli.options import Commands, add_bundle, add_device, add_trust, say, say_what_runs


def add_calibrate(commands: Commands) -> argparse.ArgumentParser:
    """Add the command."""
    command = commands.add_parser("calibrate", help="set when a guided network takes a class for absent")
    add_bundle(command)
    command.add_argument("--dataset", type=Path, required=True, help="whose validation cases are used")
    command.add_argument("--recall", type=float, default=0.999, help="of windows with a class (default: %(default)s)")
    add_device(command)
    add_trust(command)
    command.set_defaults(run=_calibrate)
    return command


def _calibrate(options: argparse.Namespace) -> int:
    from monai_unetfamily.bundles import find_bundle
    from monai_unetfamily.training import LEARNED_BY, calibrate

    bundle, how = find_bundle(options.bundle), {name: getattr(options, name) for name in ("recall", "device", "trust")}
    if options.trust:
        say_what_runs(bundle)
        say_what_runs(bundle, "train", LEARNED_BY)
    calibrate(bundle, options.dataset, log=say, **how)
    print(f"thresholds in {bundle / 'configs' / 'metadata.json'}")
    return 0
