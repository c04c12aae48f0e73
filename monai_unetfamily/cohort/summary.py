"""The tables and the page of a cohort, made from the records of its cases alone.

So they tell of all cases in the folder, whoever did them and when; a run that takes part of the cases writes them
again with what the others have done by then.
"""

import csv
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from monai_unetfamily.cohort.outputs import LOCK, PREVIEWS, TABLES
from monai_unetfamily.cohort.records import Record, matches_request, read_records
from monai_unetfamily.io import atomic_file, dseg_table, label_table, remove_parts
from monai_unetfamily.prediction import DEFAULTS, Request
from monai_unetfamily.reporting import CaseSummary, Measure, write_csv, write_page

VOLUMES, FAILED, RUN, PAGE, LABELS = TABLES
_PACKAGES = ("monai_unetfamily", "monai", "torch", "nibabel", "numpy")


def write_cohort(output: Path, request: Request, names: Mapping[int, str], machine: Mapping[str, Any]) -> list[Record]:
    """Write `volumes.csv`, `failures.csv`, `run.json`, `report.html` and `dseg.tsv`, and return the records.

    One process at a time does so: the last to come sees the cases of all.

    Args:
        output: the folder of the records.
        request: of this run.
        names: label id -> name.
        machine: that the network ran on, as `machine_of` describes it.

    Raises:
        OSError: the folder cannot be written.
    """
    with FileLock(output / LOCK):
        for name in TABLES:
            remove_parts(output / name)
        records = read_records(output)
        measured = {record.name: [Measure(**row) for row in record.classes] for record in records}
        write_csv([row for rows in measured.values() for row in rows], output / VOLUMES)
        _write_text(_failures(records), output / FAILED)
        _write_text(dseg_table(label_table(names)), output / LABELS)
        about = {"versions": {name: version(name) for name in _PACKAGES}, "machine": machine}
        _write_text(json.dumps(_run(records, request, about), indent=1) + "\n", output / RUN)
        cases = [_summary(record, measured[record.name], output, request) for record in records]
        write_page(cases, output / PAGE, _facts(records, request))
    return records


def _write_text(text: str, file: Path) -> None:
    with atomic_file(file) as stream:
        stream.write(text.encode())


def _failures(records: Sequence[Record]) -> str:
    text = StringIO()
    rows = [(record.name, " ".join(record.files), record.failure) for record in records if record.failure]
    csv.writer(text, lineterminator="\n").writerows([("case", "files", "reason"), *rows])
    return text.getvalue()


def _run(records: Sequence[Record], request: Request, about: Mapping[str, Any]) -> dict[str, Any]:
    return {**asdict(request), **about, "cases": {record.name: _case(record, request) for record in records}}


def _case(record: Record, request: Request) -> dict[str, Any]:
    other = {} if matches_request(record, request) else asdict(record.request)
    return {"failed": bool(record.failure), "seconds": record.seconds, **other}


def machine_of(device: torch.device) -> dict[str, Any]:
    """What `run.json` says of this machine, with that device of it.

    >>> machine_of(torch.device("cpu"))["gpu"] is None
    True
    """
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {"system": platform.platform(), "device": str(device), "gpu": gpu, "threads": torch.get_num_threads()}


def _summary(record: Record, measures: Sequence[Measure], output: Path, request: Request) -> CaseSummary:
    preview = output / PREVIEWS / f"{record.name}.png"
    other = () if matches_request(record, request) else ("done with another bundle or other settings",)
    return CaseSummary(
        record.name,
        measures,
        preview if preview.exists() else None,
        (*record.notes, *other),
        record.failure,
        sum(record.seconds.values()),
        record.request.settings.get("box") is not None,
    )


def _facts(records: Sequence[Record], request: Request) -> dict[str, str]:
    usual = asdict(DEFAULTS)
    settings = [f"{name} {value}" for name, value in request.settings.items() if value != usual[name]]
    seconds = sum(sum(record.seconds.values()) for record in records)
    return {
        "Bundle": ", ".join(f"{name} ({hashed[:12]})" for name, hashed in request.bundles),
        "Settings": ", ".join(settings) or "the bundle's own",
        "Versions": ", ".join(f"{name} {version(name)}" for name in _PACKAGES[:3]),
        "Work": f"{seconds / 60:.1f} minutes",
    }
