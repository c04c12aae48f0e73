"""The `unetfamily` command: parses and prints, decides nothing.

Exit status: 0 all done; 1 some cases failed, the rest are done; 2 wrong usage or unusable input, nothing was done;
130 interrupted. Errors are one line on standard error; `--debug` shows the traceback.
"""

import argparse
import logging
import sys
import warnings
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path

from monai_unetfamily import __version__
from monai_unetfamily.cli.compare import add_compare
from monai_unetfamily.cli.export import add_export
from monai_unetfamily.cli.networks import add_networks
from monai_unetfamily.cli.options import (
    Commands,
    add_bundle,
    add_device,
    add_section,
    add_trust,
    one_line,
    require_section,
    say,
    say_what_runs,
    section_cases,
)
from monai_unetfamily.cli.plan import add_plan
from monai_unetfamily.cli.predict import add_predict
from monai_unetfamily.cli.train import add_train

# What the library raises on input it cannot use; anything else is a defect and shows its traceback.
EXPECTED = (ValueError, OSError, RuntimeError, MemoryError, ImportError)
_TALKATIVE = tuple(
    f"monai.{module}"
    for module in ("bundle.scripts", "bundle.workflows", "data.image_writer", "inferers.inferer", "networks.utils")
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not options.debug:
        _hush()
    _print_any_name()
    try:
        return int(options.run(options))
    except EXPECTED as error:
        if options.debug:
            raise
        print(f"unetfamily: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("unetfamily: interrupted", file=sys.stderr)
        return 130


def _hush() -> None:
    """What packages say of themselves and of odd headers is no line of ours."""
    warnings.filterwarnings("ignore", module=r"monai\.")
    warnings.filterwarnings(
        "ignore", category=FutureWarning, module="monai"
    )  # with a stacklevel that names our modules
    warnings.filterwarnings("ignore", category=UserWarning, module="pydicom|highdicom")
    warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a name's letters, in a picture
    warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")  # MONAI's, wherever pydicom is
    logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)
    for name in _TALKATIVE:  # MONAI gives a logger that is new a handler to standard output
        logging.getLogger(name).addHandler(logging.NullHandler())


def _print_any_name() -> None:
    """A terminal or a pipe that lacks a letter of a file's name shows its number, and the run goes on."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="unetfamily", description="The U-Net family on MONAI: segment organs in CT and MR."
    )
    parser.add_argument("--version", action="version", version=f"unetfamily {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (
        _add_demo,
        add_networks,
        _add_phantom,
        add_plan,
        add_train,
        _add_calibrate,
        add_predict,
        _add_evaluate,
        _add_prune,
        add_export,
        add_compare,
    ):
        command = add(commands)
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _add_demo(commands: Commands) -> argparse.ArgumentParser:
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


def _add_phantom(commands: Commands) -> argparse.ArgumentParser:
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
    from monai_unetfamily.data.phantom import write_phantom_pictures, write_phantoms

    write = write_phantom_pictures if options.pictures else write_phantoms
    write(options.output, options.n, options.seed, shape=tuple(options.size), spacing=tuple(options.spacing))
    print(f"{options.n} phantoms in {options.output}")
    return 0


def _add_calibrate(commands: Commands) -> argparse.ArgumentParser:
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


def _add_evaluate(commands: Commands) -> argparse.ArgumentParser:
    command = commands.add_parser("evaluate", help="compare labels with references")
    command.add_argument("predictions", type=Path, help="folder of label maps, of 4-D masks or of folders; or one file")
    command.add_argument("references", type=Path, help="the same under the same names, or one file")
    add_section(command, "REFERENCES is a data set: take its labels of this section")
    command.add_argument(
        "--tolerance", type=float, default=1.0, metavar="MM", help="of surface Dice (default: 1 mm, or 1 pixel)"
    )
    command.add_argument("--csv", type=Path, help="write every case and class to this file")
    command.set_defaults(run=_evaluate)
    return command


def _evaluate(options: argparse.Namespace) -> int:
    from monai_unetfamily.data import read_label_names
    from monai_unetfamily.evaluation import evaluate_folders, format_table, summarize, write_csv

    require_section(options)
    names, references = None, options.references
    if options.section:
        cases = section_cases([references], options.section, options.fold)
        names, references = read_label_names(references) or None, [Path(case["label"]) for case in cases]
    scores = evaluate_folders(options.predictions, references, names, options.tolerance, progress=say)
    print(format_table(summarize(scores)))
    if options.csv:
        write_csv(scores, options.csv)
        print(f"every case and class in {options.csv}")
    return 0


def _add_prune(commands: Commands) -> argparse.ArgumentParser:
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
