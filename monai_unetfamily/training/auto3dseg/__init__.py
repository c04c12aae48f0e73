"""The family as an algorithm of MONAI's Auto3DSeg: the template, and what its scripts run.

Auto3DSeg divides the cases, starts the trainings, ranks and averages; each of its trainings is `unetfamily plan` and
`unetfamily train` on the cases of one fold.
"""

from pathlib import Path

TEMPLATES = Path(__file__).parent / "templates"  # what BundleGen and AutoRunner take as templates_path_or_url
