"""A cohort in one call, as most tests want it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from monai_unetfamily.bundles.bundle import Bundle
from monai_unetfamily.inference.batch import predict_cohort
from monai_unetfamily.inference.outcomes import Outcome
from monai_unetfamily.inference.settings import Settings
from monai_unetfamily.volumes.studies import find_studies


def predict(
    bundle: Bundle, inputs: Sequence[Path], output: Path, *, overwrite: bool = False, **settings: Any
) -> Iterator[Outcome]:
    """What becomes of each image of the inputs; no previews."""
    studies = find_studies(inputs).studies
    return predict_cohort([bundle], studies, output, Settings(previews=False, **settings), overwrite=overwrite)
