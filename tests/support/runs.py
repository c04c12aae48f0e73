"""A cohort in one call, as most tests want it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from monai_unetfamily.bundles import Bundle
from monai_unetfamily.cohort import CaseResult, predict_cohort
from monai_unetfamily.data import find_studies
from monai_unetfamily.prediction import Settings


def predict(
    bundle: Bundle, inputs: Sequence[Path], output: Path, *, overwrite: bool = False, **settings: Any
) -> Iterator[CaseResult]:
    """What becomes of each image of the inputs; no previews."""
    studies = find_studies(inputs).studies
    return predict_cohort([bundle], studies, output, Settings(previews=False, **settings), overwrite=overwrite)
