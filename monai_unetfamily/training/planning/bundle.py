"""Write a plan as an ordinary MONAI bundle: configs that people read and change, metadata, a card."""

from importlib.resources import files
from pathlib import Path
from textwrap import wrap

from monai_unetfamily.bundles.metadata import METADATA, find_bundle
from monai_unetfamily.training.planning.decisions import format_decisions
from monai_unetfamily.training.planning.filling import fill
from monai_unetfamily.training.planning.fingerprint import Fingerprint, format_fingerprint
from monai_unetfamily.training.planning.lines import inference_values, train_values
from monai_unetfamily.training.planning.metadata import metadata_text
from monai_unetfamily.training.planning.plan import Plan
from monai_unetfamily.volumes.cases import Facts
from monai_unetfamily.volumes.files import atomic_folder, make_folder

_TEMPLATE = files("monai_unetfamily.training.planning") / "template"
_AS_THEY_ARE = ("train.json", "evaluate.yaml", "multi_gpu_train.yaml", "logging.conf")
_WIDTH = 120  # of a line
_PLANNED = "Planned from the data set below, whose files were all checked and measured."


def write_bundle(
    plan: Plan, fingerprint: Fingerprint, output: Path, facts: Facts | None = None, note: str = _PLANNED
) -> None:
    """Write the bundle of a plan into a new folder, whole or not at all.

    Args:
        plan: from `make_plan` of this fingerprint.
        fingerprint: goes with it as `docs/fingerprint.json`.
        output: new folder.
        facts: what the data set says of itself.
        note: of the card, on where the figures come from.

    Raises:
        FileExistsError: the folder is not empty.
        ValueError: label ids with a gap.
        OSError: the folder cannot be written.
    """
    facts = facts or Facts(fingerprint.name, fingerprint.channels, fingerprint.modality, "", "", "")
    texts = {
        f"configs/{METADATA}": metadata_text(plan, fingerprint, facts),
        "configs/train.yaml": fill(_read("train.yaml"), train_values(plan, fingerprint)),
        "configs/inference.yaml": fill(_read("inference.yaml"), inference_values(plan, fingerprint)),
        **{f"configs/{name}": _read(name) for name in _AS_THEY_ARE},
        "docs/README.md": fill(_read("README.md"), _card_values(plan, fingerprint, facts, output.name, note)),
        "docs/fingerprint.json": fingerprint.to_json() + "\n",
        "LICENSE": (find_bundle("phantom_ct") / "LICENSE").read_text(encoding="utf-8"),
    }
    make_folder(output.absolute().parent)
    with atomic_folder(output.absolute()) as room:
        for name, text in texts.items():
            (room / name).parent.mkdir(exist_ok=True)
            (room / name).write_text(text, encoding="utf-8")


def _read(name: str) -> str:
    return (_TEMPLATE / name).read_text(encoding="utf-8")


def _card_values(
    plan: Plan, fingerprint: Fingerprint, facts: Facts, folder: str, note: str
) -> dict[str, str | list[str]]:
    licence = (
        f"Licence of the data: {facts.licence}." if facts.licence else "The data set names no licence: ask for one."
    )
    source = " ".join([f"{facts.name}{f', {facts.reference}' if facts.reference else ''}.", licence])
    return {
        "title": facts.name,
        "description": _sentence(facts.description or f"Segmentation of {', '.join(fingerprint.classes)}"),
        "note": wrap(note, _WIDTH),
        "data": wrap(source, _WIDTH),
        "fingerprint": format_fingerprint(fingerprint).splitlines(),
        "decisions": [
            line
            for decision in format_decisions(plan.decisions).splitlines()
            for line in wrap(decision, _WIDTH, subsequent_indent="  ", break_on_hyphens=False)
        ],
        "folder": folder,
        "minutes": "" if plan.schedule.minutes is None else f" --minutes {plan.schedule.minutes:g}",
    }


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."
