"""Run every command of docs/family.md in the checkout, and write its tables and pictures anew."""

import re
import shlex
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from monai_unetfamily.cli import main

PAGE = Path(__file__).parents[1] / "docs/family.md"
COMMAND_AND_TABLES = re.compile(r"`unetfamily (networks .+)`\n(?:\n(?:\|.*\n)+)*")


def run(found: re.Match[str]) -> str:
    """The command again, with what it prints now."""
    command = found[1]
    with redirect_stdout(StringIO()) as said:
        main(shlex.split(command))
    below = "" if "--diagram" in command else f"\n{said.getvalue()}"
    return f"`unetfamily {command}`\n{below}"


if __name__ == "__main__":
    PAGE.write_text(COMMAND_AND_TABLES.sub(run, PAGE.read_text("utf-8")), "utf-8")
