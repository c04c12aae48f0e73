"""What a planner decided, with the reason of each decision."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Decision:
    """One thing decided: what, which value, and the reason in a sentence that names its numbers."""

    what: str
    value: str
    reason: str


def format_decisions(decisions: Sequence[Decision]) -> str:
    """Decisions as a list for people, in plain text that is Markdown too.

    >>> print(format_decisions([Decision("patch", "40 x 56 x 40", "the median image is no larger.")]))
    - **patch**: 40 x 56 x 40. The median image is no larger.
    """
    return "\n".join(
        f"- **{each.what}**: {each.value}. {each.reason[:1].upper()}{each.reason[1:]}" for each in decisions
    )


def by(values: Sequence[float]) -> str:
    """Numbers of several axes in one word.

    >>> by((40, 56, 40)), by((0.793, 0.793, 1.6))
    ('40 x 56 x 40', '0.793 x 0.793 x 1.6')
    """
    return " x ".join(f"{value:.4g}" for value in values)
