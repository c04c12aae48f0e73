"""What a training was worth: its validation cases predicted and evaluated as the commands do it, told in the card."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import monai
import torch

from monai_unetfamily.bundles import Bundle, open_bundle
from monai_unetfamily.cohort import CaseResult, predict_cohort
from monai_unetfamily.data import case_study
from monai_unetfamily.evaluation import Score, evaluate_folders, format_table, summarize, write_csv
from monai_unetfamily.io import atomic_file, make_directory
from monai_unetfamily.prediction import DEFAULTS, Settings
from monai_unetfamily.training.history import read_history
from monai_unetfamily.training.training_checks import read_split

SCORES = "eval/scores.csv"
_MARKS = "<!-- result -->", "<!-- /result -->"
_RESULT = """{network} ({parameters:,} parameters), {epochs} epochs in {minutes:.1f} minutes on {device}
(PyTorch {torch}, MONAI {monai}). It learned from {training} cases, and these are its weights after the last epoch.
On {validation}:

{table}

Each case is in `eval/scores.csv`, its labels in `eval/labels/`."""
_UNKNOWN = """A training has begun, and has not come to its end: what its weights are worth is not known.
`unetfamily train --resume` goes on from its last whole epoch."""
_HELD_OUT = "the {count} validation cases, some of which were watched while it trained"
_SEEN = "{count} cases that it **has learned from**, so that this is no measure of what it can do"


def validate(
    root: Path,
    cases: Sequence[Mapping[str, Any]],
    names: Mapping[int, str],
    device: torch.device,
    log: Callable[[str], None],
    *,
    trust: bool = False,
) -> list[Score]:
    """Predict and evaluate cases with a bundle that has been trained, and write the figures into its card.

    Labels and the cohort's page go to `eval/labels/`, scores to `eval/scores.csv`, the table to `docs/README.md`,
    between marks that a next training finds again.

    Args:
        root: the bundle's folder.
        cases: `{"image": path, "label": path}`.
        names: label id -> name in their label maps.
        device: where it predicts.
        log: is given a line for each step.
        trust: whether the bundle may run code of its own.

    Raises:
        ValueError, OSError: what prediction and evaluation of a case raise.
    """
    log(f"predicting and evaluating the {len(cases)} validation cases")
    bundle = open_bundle(root, device, trust=trust)
    scores = score_cases(bundle, cases, names, root / "eval" / "labels")
    table = format_table(summarize(scores))
    for line in table.splitlines():
        log(line)
    write_result(root / "docs" / "README.md", _describe(bundle, table, len(cases)))
    write_csv(scores, root / SCORES)  # last: it says that the training is whole
    return scores


def score_cases(
    bundle: Bundle,
    cases: Sequence[Mapping[str, Any]],
    names: Mapping[int, str],
    folder: Path,
    settings: Settings = DEFAULTS,
) -> list[Score]:
    """Scores of each case and class, by the steps of the commands predict and evaluate.

    Args:
        bundle: predicts.
        cases: `{"image": path, "label": path}`.
        names: label id -> name in their label maps.
        folder: of the predicted labels, and of the cohort's page; what it holds of these cases is replaced.
        settings: of the prediction.

    Raises:
        ValueError, OSError: what prediction and evaluation of a case raise.
    """
    case_results = predict_cohort([bundle], [case_study(case) for case in cases], folder, settings, overwrite=True)
    return [
        score
        for case, case_result in zip(cases, case_results, strict=True)
        for score in _scores(case, case_result, names)
    ]


def forget_result(root: Path) -> None:
    """Take a bundle's figures back, which are of other weights from now on."""
    (root / SCORES).unlink(missing_ok=True)
    write_result(root / "docs" / "README.md", _UNKNOWN)


def write_result(card: Path, text: str) -> None:
    """Put a text between the marks of a card, or under a heading of its own at its end.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     card = Path(folder) / "README.md"
    ...     _ = card.write_text("# Spleen")
    ...     write_result(card, "Dice 0.8")
    ...     write_result(card, "Dice 0.9")
    ...     card.read_text().split()
    ['#', 'Spleen', '##', 'Result', '<!--', 'result', '-->', 'Dice', '0.9', '<!--', '/result', '-->']
    """
    before = card.read_text(encoding="utf-8") if card.is_file() else ""
    begin, end = _MARKS
    if begin not in before:
        before = f"{before.rstrip()}\n\n## Result\n\n{begin}\n{end}\n"
    part = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    make_directory(card.parent)
    with atomic_file(card) as stream:
        stream.write(part.sub(lambda _: f"{begin}\n{text}\n{end}", before, count=1).encode())


def _scores(case: Mapping[str, Any], case_result: CaseResult, names: Mapping[int, str]) -> list[Score]:
    if case_result.output is None:
        raise case_result.error or ValueError(f"{case['image']}: was not predicted.")
    return evaluate_folders(case_result.output, Path(case["label"]), names)


def _describe(bundle: Bundle, table: str, count: int) -> str:
    epochs, split = read_history(bundle.root / "logs" / "history.csv"), read_split(bundle.root / "logs")
    seen = split["fold"] == "all"
    return _RESULT.format(
        network=type(bundle.network).__name__,
        parameters=sum(p.numel() for p in bundle.network.parameters()),
        epochs=len(epochs),
        minutes=epochs[-1].seconds / 60,
        device=bundle.device,
        torch=torch.__version__,
        monai=monai.__version__,
        training=len(split["training"]),
        validation=(_SEEN if seen else _HELD_OUT).format(count=count),
        table=table,
    )
