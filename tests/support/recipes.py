"""The recipes that ship without weights: what the planner's rules make of published facts.

The facts are in each one's docs/fingerprint.json; here is what a data set says of itself, and what was asked for.
`python -m tests.support.recipes` writes the recipes anew.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from monai_unetfamily.data import Facts
from monai_unetfamily.planning.bundle_files import write_bundle
from monai_unetfamily.planning.fingerprint import Fingerprint
from monai_unetfamily.planning.planner import make_plan

CONFIGS = Path(__file__).parents[2] / "configs"
_DECATHLON = "Medical Segmentation Decathlon (Antonelli et al., Nature Communications 2022; medicaldecathlon.com)"
_NO_WEIGHTS = "**No weights are shipped with this recipe: bring the data and train it.**"
_SHARES = "The share of patches without an organ is reckoned from its extent and the patch's, not counted."

RECIPES: dict[str, tuple[Facts, str, dict[str, Any]]] = {
    "spleen_ct": (
        Facts(
            "Spleen in portal venous CT",
            ("CT",),
            "CT",
            "CC-BY-SA 4.0",
            "The spleen in portal venous CT, for MSD Task09 Spleen: 41 labelled volumes of Memorial Sloan Kettering",
            f"{_DECATHLON}, Task09 Spleen",
        ),
        f"{_NO_WEIGHTS} The figures below are published ones: in-plane spacing and the tenth percentile across "
        "slices (five rows of 1.6 mm) as NVIDIA's nnU-Net for PyTorch states them for this set, the HU limits of "
        "MONAI's own bundle spleen_ct_segmentation. 5 mm and 90 slices in the median are nnU-Net's figures by memory, "
        "not looked up: plan on your copy of the data, and compare. "
        f"Volumes are an adult's, rounded. {_SHARES}",
        # a window of 88 x 88 x 102 mm in 404 x 404 x 450 mm meets a box of 80 x 110 x 110 mm in 0.20 of its places
        {"absent": {"spleen": 0.8}, "hu": (-57.0, 164.0)},
    ),
    "abdomen_ct": (
        Facts(
            "13 organs in abdominal CT",
            ("CT",),
            "CT",
            "as Synapse states it (syn3193805, registration needed)",
            "Thirteen abdominal organs in portal venous CT, for the 30 labelled volumes of BTCV",
            "Multi-Atlas Labeling Beyond the Cranial Vault (BTCV; Landman et al. 2015, Synapse syn3193805)",
        ),
        f"{_NO_WEIGHTS} The figures below are published ones: the grids of eleven volumes as the CADS data set lists "
        "them, their median for the other nineteen (Synapse states 0.54 to 0.98 mm, 2.5 to 5 mm, 85 to 198 slices), "
        "the HU limits of MONAI's bundle swin_unetr_btcv_segmentation. Volumes are an adult's, rounded; some of these "
        f"patients have no gallbladder or no right kidney, which the table does not count. {_SHARES}",
        # a window of 93 x 93 x 120 mm in 373 x 373 x 444 mm meets a box of 20 x 30 x 30 mm in 0.08 of its places
        {"absent": {"right adrenal gland": 0.92, "left adrenal gland": 0.92}, "hu": (-175.0, 250.0)},
    ),
    "heart_mr": (
        Facts(
            "Left atrium in cardiac MR",
            ("MRI",),
            "MR",
            "CC-BY-SA 4.0",
            "The left atrium in cardiac MR, for MSD Task02 Heart: 20 labelled volumes of King's College London",
            f"{_DECATHLON}, Task02 Heart",
        ),
        f"{_NO_WEIGHTS} The figures below are published ones: the spacing as NVIDIA's nnU-Net for PyTorch states it "
        "for this set, the median size is nnU-Net's by memory, not looked up: plan on your copy of the "
        "data, and compare. The volume is an adult's, rounded.",
        {},
    ),
}


def write_recipe(name: str, output: Path) -> None:
    """The recipe as the rules make it today."""
    facts, note, asked = RECIPES[name]
    fingerprint = Fingerprint.from_json((CONFIGS / name / "docs/fingerprint.json").read_text(encoding="utf-8"))
    write_bundle(make_plan(fingerprint, **asked), fingerprint, output, facts, note)


if __name__ == "__main__":
    for recipe in RECIPES:
        with tempfile.TemporaryDirectory() as folder:
            write_recipe(recipe, Path(folder) / recipe)
            shutil.copytree(Path(folder) / recipe, CONFIGS / recipe, dirs_exist_ok=True)
