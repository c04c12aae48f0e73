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

from monai_unetfamily import __version__
from monai_unetfamily.cli.calibrate import add_calibrate
from monai_unetfamily.cli.compare import add_compare
from monai_unetfamily.cli.demo import add_demo
from monai_unetfamily.cli.evaluate import add_evaluate
from monai_unetfamily.cli.export import add_export
from monai_unetfamily.cli.networks import add_networks
from monai_unetfamily.cli.options import one_line
from monai_unetfamily.cli.phantom import add_phantom
from monai_unetfamily.cli.plan import add_plan
from monai_unetfamily.cli.predict import add_predict
from monai_unetfamily.cli.prune import add_prune
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
        add_demo,
        add_networks,
        add_phantom,
        add_plan,
        add_train,
        add_calibrate,
        add_predict,
        add_evaluate,
        add_prune,
        add_export,
        add_compare,
    ):
        command = add(commands)
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser
