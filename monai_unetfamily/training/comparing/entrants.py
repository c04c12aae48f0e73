"""From the trainings of each network to the rows of a comparison."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from monai_unetfamily.training.comparing.members import Candidate
from monai_unetfamily.training.comparing.results import Cost, Entrant, Run
from monai_unetfamily.training.comparing.variants import Way


def gather(
    candidates: Sequence[Candidate], runs: Sequence[Run], costs: Mapping[Way, tuple[float, float]]
) -> Iterator[Entrant]:
    """Each candidate with its variants, from all its trainings that did not fail; none where all failed.

    Args:
        candidates: in the order of the rows.
        runs: of all of them.
        costs: network and variant -> seconds and peak bytes, as far as they were measured.
    """
    for candidate in candidates:
        done = [run for run in runs if run.network == candidate.name and not run.failure]
        for variant in done[0].scores if done else ():
            seconds, peak = costs.get((candidate.name, variant), (float("nan"),) * 2)
            yield Entrant(
                f"{candidate.name} {variant}".strip(),
                "variant" if variant else candidate.kind,
                tuple(score for run in done for score in run.scores[variant]),
                Cost(*done[0].sizes[variant], seconds, peak),
                tuple(run.repeat for run in done),
                () if variant else tuple(run.curve for run in done),
                (min(run.minutes for run in done), max(run.minutes for run in done)),
                (min(run.epochs for run in done), max(run.epochs for run in done)),
                fmean(run.samples_per_second for run in done),
            )
