"""`unetfamily evaluate`: label maps compared with references."""

import argparse
from pathlib import Path

from monai_unetfamily.cli.options import Commands, add_section, require_section, say, section_cases


def add_evaluate(commands: Commands) -> argparse.ArgumentParser:
    """Add the command."""
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
