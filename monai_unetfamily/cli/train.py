"""`unetfamily train`: a bundle trained on a data set."""

import argparse
from pathlib import Path

from monai_unetfamily.cli.options import Commands, add_bundle, add_device, add_trust, fold, say

_OPTIONS = (
    "output", "network", "minutes", "epochs", "fold", "resume", "init_from", "cache_dir", "seed", "device", "tracking",
    "trust",
)  # fmt: skip


def add_train(commands: Commands) -> argparse.ArgumentParser:
    """Add the command."""
    command = commands.add_parser("train", help="train a bundle on a data set, then evaluate it")
    add_bundle(command)
    command.add_argument(
        "--dataset",
        type=Path,
        required=True,
        help="folder with a dataset.json (Decathlon or nnU-Net), or with images/ and labels/ of the same names",
    )
    command.add_argument("-o", "--output", type=Path, help="train a copy of the bundle in this new folder")
    command.add_argument(
        "--network", help="train this one of the bundle's or the family's networks (changes the bundle's metadata)"
    )
    length = command.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, help="of training, resumed ones included (default: the bundle's)")
    length.add_argument("--epochs", type=int, help="in place of minutes (default: the bundle's max_epochs)")
    command.add_argument(
        "--fold", type=fold, metavar="K", help="hold out this fold, or train on all (default: the only split, or 0)"
    )
    command.add_argument("--resume", action="store_true", help="go on from the last whole epoch")
    command.add_argument("--init-from", type=Path, metavar="WEIGHTS", help="start from these: a file, or a bundle")
    command.add_argument("--cache-dir", type=Path, metavar="DIR", help="for preprocessed cases; trainings may share it")
    command.add_argument("--seed", type=int, help="of weights, order and augmentation (default: the bundle's)")
    add_device(command)
    command.add_argument("--tracking", choices=["mlflow"], help="log to MLflow too; needs the extra `tracking`")
    add_trust(command)
    command.set_defaults(run=_train)
    return command


def _train(options: argparse.Namespace) -> int:
    from monai_unetfamily.bundles import find_bundle
    from monai_unetfamily.training import train

    how = {name: getattr(options, name) for name in _OPTIONS}
    weights = train(find_bundle(options.bundle), options.dataset, log=say, **how)
    root = weights.parents[1]
    print(f"weights in {weights}; history and pictures in {root / 'logs'}; the result in {root / 'docs/README.md'}")
    return 0
