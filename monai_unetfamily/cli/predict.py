"""`unetfamily predict`: a cohort, none lost."""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from math import inf, nan
from pathlib import Path
from typing import TYPE_CHECKING

from monai_unetfamily.cli.options import (
    Commands,
    add_bundle,
    add_device,
    add_section,
    add_trust,
    one_line,
    require_section,
    say,
    say_what_runs,
    section_cases,
)

if TYPE_CHECKING:
    from monai_unetfamily.bundles import Bundle
    from monai_unetfamily.cohort import CaseResult
    from monai_unetfamily.data import Studies
    from monai_unetfamily.io import Study
    from monai_unetfamily.prediction import Progress, Settings


def add_predict(commands: Commands) -> argparse.ArgumentParser:
    """Add the command."""
    command = commands.add_parser("predict", help="segment volumes, DICOM series and pictures, each on its own grid")
    add_bundle(command)
    command.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="files, folders, quoted patterns, lists (.txt, .csv) of images"
    )
    command.add_argument("-o", "--output", type=Path, required=True, help="folder for everything that is written")
    add_device(command)
    add_trust(command)
    _add_inputs(command.add_argument_group("what is read"))
    _add_way(command.add_argument_group("how it is segmented"))
    _add_outputs(command.add_argument_group("what is written"))
    _add_run(command.add_argument_group("the run"))
    command.set_defaults(run=_predict)
    return command


def _add_inputs(group: argparse._ArgumentGroup) -> None:
    add_section(group, "INPUT is a data set: take the images of this section")
    group.add_argument("--channel-dim", type=int, metavar="AXIS", help="of 4-D files, the axis that counts channels")
    group.add_argument("--series", help="of a DICOM folder: number, UID or description (default: the largest axial)")
    group.add_argument("--max-voxels", type=int, metavar="N", help="that a header may claim (default: 2^31)")
    group.add_argument("--nan", choices=("refuse", "zero"), default="refuse", help="what becomes of NaN voxels")
    group.add_argument(
        "--gaps", choices=("refuse", "resample"), default="refuse", help="what becomes of uneven or tilted DICOM slices"
    )


def _add_way(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--overlap", type=float, metavar="FRACTION", help="of windows (default: the bundle's)")
    group.add_argument("--mirror", action="store_true", help="average over the flips that the bundle allows")
    group.add_argument("--level", type=int, metavar="D", help="of a UNet++: its head D alone")
    group.add_argument(
        "--box", metavar="I:J,K:L,M:N", help="segment these voxels of the array alone, first:stop an axis"
    )
    group.add_argument(
        "--presence", nargs="+", default=[], metavar="[CLASS=]P", help="of guided networks: absent below P; 0: never"
    )
    group.add_argument("--ensemble", nargs="+", default=[], metavar="BUNDLE", help="average with these, or folds")
    group.add_argument("--keep-largest", nargs="*", metavar="CLASS", help="the largest part alone, of these (all)")
    group.add_argument(
        "--min-volume", nargs="+", default=[], metavar="[CLASS=]ML", help="take away smaller parts, of a class or all"
    )


def _add_outputs(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--roi", nargs="+", default=[], metavar="CLASS", help="write these classes alone")
    group.add_argument("--split", action="store_true", help="write one mask a class, OUTPUT/<name>/<class>.nii.gz")
    group.add_argument("--save-scores", action="store_true", help="write the class scores too, as 4-D NIfTI")
    group.add_argument("--dicom-seg", action="store_true", help="of DICOM series: write DICOM Segmentations too")
    group.add_argument("--no-previews", action="store_true", help="draw no pictures")


def _add_run(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--overwrite", action="store_true", help="do again, and replace, what is there")
    group.add_argument("--dry-run", action="store_true", help="print what would be done, and stop")
    group.add_argument("--shard", metavar="I/N", help="do part I of N (default: of a SLURM array the task's)")
    group.add_argument("--ray", metavar="ADDRESS", help="do the cases on a Ray cluster: local, auto or HOST:PORT")
    group.add_argument(
        "--worker-cores", type=int, metavar="N", help="of each process on it (default: 4, or a GPU's share)"
    )


def _predict(options: argparse.Namespace) -> int:
    from monai_unetfamily.bundles import find_bundle, open_bundle
    from monai_unetfamily.cohort import plan_lines
    from monai_unetfamily.prediction import choose_device

    require_section(options)
    _require_ray(options)
    device = choose_device("cpu" if options.ray else options.device)  # with Ray the workers have it
    roots = [find_bundle(name) for name in (options.bundle, *options.ensemble)]
    for root in roots if options.trust else ():
        say_what_runs(root)
    bundles = [open_bundle(root, device, trust=options.trust) for root in roots]
    studies, settings = _studies(options, bundles[0].root), _settings(options, bundles[0].names)
    if options.dry_run:
        for line in plan_lines(bundles, studies, options.output, settings, overwrite=options.overwrite):
            say(line)
        return 0
    predict = _on_cluster if options.ray else _here
    return predict(options, bundles, studies, settings)


def _require_ray(options: argparse.Namespace) -> None:
    """Refuse what needs Ray without it."""
    from monai_unetfamily.integrations import require_ray

    if options.ray:
        require_ray(options.ray)
    elif options.worker_cores is not None:
        raise ValueError(f"got --worker-cores {options.worker_cores} without --ray; add it (--ray local), or leave it.")


def _here(
    options: argparse.Namespace, bundles: "Sequence[Bundle]", studies: "Sequence[Study]", settings: "Settings"
) -> int:
    from monai_unetfamily.cohort import predict_cohort

    with _bar() as progress:
        case_results = predict_cohort(
            bundles, studies, options.output, settings, overwrite=options.overwrite, log=say, progress=progress
        )
        return _tell(case_results, len(studies), options.debug)


def _on_cluster(
    options: argparse.Namespace, bundles: "Sequence[Bundle]", studies: "Sequence[Study]", settings: "Settings"
) -> int:
    from monai_unetfamily.integrations import predict_on_cluster

    case_results = predict_on_cluster(
        bundles,
        studies,
        options.output,
        settings,
        address=options.ray,
        device=options.device,
        cores=options.worker_cores,
        trust=options.trust,
        overwrite=options.overwrite,
        log=say,
    )
    with closing(case_results):
        return _tell(case_results, len(studies), options.debug)


def _studies(options: argparse.Namespace, bundle: Path) -> "list[Study]":
    from monai_unetfamily.bundles import image_channels
    from monai_unetfamily.cohort import choose_shard
    from monai_unetfamily.data import find_studies

    if options.section:
        found = _section_studies(options)
    else:
        found = find_studies(
            options.inputs, channels=image_channels(bundle), channel_dim=options.channel_dim, series=options.series
        )
    for note in found.notes:
        say(note)
    shard = choose_shard(options.shard)
    if shard.total > 1:
        say(f"part {shard.number} of {shard.total}")
    return shard.of(found.studies)


def _section_studies(options: argparse.Namespace) -> "Studies":
    from monai_unetfamily.data import Studies, case_study, require_own_names

    cases = section_cases([Path(name) for name in options.inputs], options.section, options.fold)
    studies = tuple(case_study(case, options.channel_dim) for case in cases)
    require_own_names(studies)
    return Studies(studies)


def _settings(options: argparse.Namespace, names: "Mapping[int, str]") -> "Settings":
    from monai_unetfamily.io import MAX_VOXELS, parse_box
    from monai_unetfamily.prediction import Settings

    classes = tuple(name for label, name in names.items() if label)
    largest = () if options.keep_largest is None else tuple(options.keep_largest) or classes
    return Settings(
        overlap=options.overlap,
        mirror=options.mirror,
        level=options.level,
        presence=_of_classes("--presence", options.presence, classes, "P"),
        box=None if options.box is None else parse_box(options.box),
        roi=tuple(options.roi),
        keep_largest=largest,
        min_volume=_of_classes("--min-volume", options.min_volume, classes, "ML"),
        split=options.split,
        save_scores=options.save_scores,
        dicom_seg=options.dicom_seg,
        previews=not options.no_previews,
        nan=options.nan,
        gaps=options.gaps,
        max_voxels=_limit(options.max_voxels, MAX_VOXELS),
    )


def _limit(voxels: int | None, usual: int) -> int:
    if voxels is not None and voxels < 1:
        raise ValueError(f"--max-voxels got {voxels}; 1 or more is allowed.")
    return usual if voxels is None else voxels


def _of_classes(option: str, texts: "Sequence[str]", classes: "Sequence[str]", what: str) -> dict[str, float]:
    """Class -> number of each "CLASS=NUMBER", and for all classes of each "NUMBER"; of two for a class the last."""
    numbers: dict[str, float] = {}
    for text in texts:
        name, equals, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = nan
        if not 0 <= value < inf:
            raise ValueError(f"{option} got {text!r}; {what} or CLASS={what} is allowed, 0 or more, as in liver=0.5.")
        numbers |= dict.fromkeys([name] if equals else classes, value)
    return numbers


def _tell(case_results: "Iterator[CaseResult]", total: int, debug: bool) -> int:
    """Print a line a case, and return the exit status: 1 too where the run ends before all cases are done."""
    number = failed = skipped = 0
    try:
        for number, case_result in enumerate(case_results, start=1):
            failed += case_result.error is not None
            skipped += case_result.skipped
            _tell_case(case_result, f"{number}/{total}", debug)
    except OSError as error:  # of the output folder; a case's own is in its outcome
        if debug or not number:
            raise
        print(f"unetfamily: {one_line(error)}", file=sys.stderr)
        return 1
    say(f"{number - failed - skipped} done, {skipped} finished before, {failed} failed")
    return 1 if failed else 0


def _tell_case(case_result: "CaseResult", number: str, debug: bool) -> None:
    record = case_result.record
    if case_result.error is not None:
        if debug:
            raise case_result.error
        print(f"unetfamily: {record.name}: {one_line(case_result.error)}", file=sys.stderr)
        return
    how = "is finished already" if case_result.skipped else f"{sum(record.seconds.values()):.1f} s"
    say(f"{number} {record.name}: {how}")
    for note in () if case_result.skipped else record.notes:
        say(f"    {note}")


@contextmanager
def _bar() -> "Iterator[Callable[[Study, Progress], None]]":
    """A bar of the windows of the present case, on a terminal."""
    from tqdm import tqdm

    with tqdm(unit="window", disable=not sys.stderr.isatty(), leave=False) as bar:

        def show(study: "Study", step: "Progress") -> None:
            bar.set_description(study.name, refresh=False)
            bar.total = step.total
            bar.n = step.done
            bar.refresh()

        yield show
