"""The output files of a case: labels, measures, preview, scores, DICOM Segmentation."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from monai_unetfamily.bundles import Bundle, maker_of
from monai_unetfamily.cohort.records import UNFINISHED, Record, holds, matches_request, read_record, record_file
from monai_unetfamily.io import (
    Affine,
    Image,
    Labels,
    Study,
    file_names,
    label_table,
    make_directory,
    may_overlap,
    remove_parts,
    score_file,
    sidecar_labels,
    write_label_image2d,
    write_labels,
    write_masks,
    write_separate_masks,
)
from monai_unetfamily.io.dicom import SEGMENTATION, Maker
from monai_unetfamily.prediction import Request, Settings, Sink, find_ids, keep_largest, min_volume, select
from monai_unetfamily.reporting import Measure, measure, save_overlay

# The DICOM Segmentations of a run, where they are asked for: checked at the door and before each case, and written.
#
# What it needs (SimpleITK, pydicom, highdicom) is loaded by a run that writes some, and by no other.


def require_series(studies: Sequence[Study]) -> None:
    """Refuse a run that is to write DICOM Segmentations and cannot: a package is missing, or a case is no DICOM.

    Raises:
        ImportError: says what to install.
        ValueError: names the first case.

    >>> require_series([Study("ct", (Path("ct.nii.gz"),), "nifti")])
    Traceback (most recent call last):
    ValueError: ct.nii.gz: is no DICOM series, ...
    """
    from monai_unetfamily.io.dicom import require_packages

    require_packages()
    if other := next((study for study in studies if study.kind != "dicom"), None):
        raise ValueError(
            f"{other.files[0]}: is no DICOM series, to which a DICOM Segmentation refers; name DICOM series alone, or "
            "leave --dicom-seg (dicom_seg=True) out."
        )


@dataclass(frozen=True)
class Segmentations:
    """The DICOM Segmentations by a maker, of classes of these names (label id -> name, with the background)."""

    names: Mapping[int, str]
    maker: Maker

    def check(self, study: Study, image: Image) -> None:
        """Refuse a case of which none can be written: a ValueError, before the network runs."""
        from monai_unetfamily.io.dicom import check_segmentation

        if image.grid is not None:
            check_segmentation(study.files, image.grid, self.names, self.maker)

    def write(self, study: Study, image: Image, labels: Labels, file: Path) -> None:
        """Write what the label map holds.

        Raises:
            ValueError: slices to which none can refer.
            OSError: the file cannot be written.
        """
        from monai_unetfamily.io.dicom import write_segmentation

        if image.grid is not None:
            make_directory(file.parent)
            write_segmentation(labels, study.files, image.grid, self.names, self.maker, file)


def segmentations_of(roots: Sequence[Path], request: Request, names: Mapping[int, str]) -> Segmentations:
    """Those of a run with these bundles, the folder of each, that was asked for so.

    Raises:
        ValueError: metadata whose codes cannot be used.
    """
    return Segmentations(names, maker_of(roots, [hashed for _, hashed in request.bundles]))


# What a case gives: labels, measures, a preview, scores; where each lies, and what must not be replaced.

# Folders below which nothing is taken for a label map.
TABLES: tuple[str, str, str, str, str] = (
    "volumes.csv",
    "failures.csv",
    "run.json",
    "report.html",
    "dseg.tsv",
)  # of a run
LOCK = ".unetfamily.lock"  # that runs take in turn for the tables
_LONGEST = 200  # bytes of a name: with what is added below every file system's limit
RESERVED = ("run", "details")  # what the run itself writes: run.json, details/
PREVIEWS, SCORES, CHANGED = "details/previews", "details/scores", "details/changed"


class Written(NamedTuple):
    """What was written of a case: files relative to the output folder, the labels' table, measures, and notes."""

    files: list[str]
    labels: dict[str, Any]
    measures: list[Measure]
    notes: list[str]


@dataclass(frozen=True)
class Outputs:
    """The files of a run in its folder, for classes of these names (label id -> name).

    `<name>.nii.gz` is the label map, 4-D masks where classes may overlap, and `<name>.png` for a picture; with
    `settings.split` each class's mask is `<name>/<class>.nii.gz` or `.png`. `details/previews/<name>.png` shows it, and
    `details/scores/<name>.nii` holds the scores where they are asked for, and `<name>.seg.dcm` what the label map
    holds, as a DICOM Segmentation.
    """

    folder: Path
    names: Mapping[int, str]
    settings: Settings
    segmentations: Segmentations | None = None  # what writes them, where they are asked for

    def target(self, study: Study) -> Path:
        """The label map, or the folder of the masks."""
        return self.folder / (study.name if self.settings.split else self.labels(study)[0])

    def labels(self, study: Study) -> list[str]:
        """The label map's file, or those of its masks."""
        suffix = ".png" if study.kind == "picture" else ".nii.gz"
        if not self.settings.split:
            return [f"{study.name}{suffix}"]
        return [f"{study.name}/{name}{suffix}" for name in file_names(self.settings.wanted(self.names)).values()]

    def planned(self, study: Study) -> list[str]:
        """All files of a case but its record."""
        preview = [self._preview(study)] if self.settings.previews else []
        segmentation = [self._segmentation(study)] if self.settings.dicom_seg else []
        return [*self.labels(study), *segmentation, *preview, *self.scores_planned(study)]

    def scores_planned(self, study: Study) -> list[str]:
        """The file of scores, where there will be one."""
        return [self._scores(study)] if self.settings.save_scores and study.kind != "picture" else []

    def require_no_conflict(self, studies: Sequence[Study], request: Request, overwrite: bool) -> None:
        """Refuse to replace an input, or a file that no run with this request wrote.

        Raises:
            ValueError, FileExistsError: name the first, and what to do.
            ImportError: a DICOM Segmentation is asked for, and the extra `dicom` is missing.
        """
        if self.settings.dicom_seg:
            require_series(studies)
        self._require_one_map(studies)
        self._require_names(studies)
        inputs = {file.resolve() for study in studies for file in study.files}
        planned = {study: [self.folder / file for file in self.planned(study)] for study in studies}
        if replaced := inputs.intersection(file.resolve() for files in planned.values() for file in files):
            raise ValueError(f"{min(replaced)}: is an input that would be replaced; choose another output folder.")
        if beside := [file for file in inputs if file.parent == self.folder.resolve()]:
            raise ValueError(
                f"{self.folder}: holds inputs ({min(beside).name}), among which the next run would take label maps for "
                "images; choose another output folder."
            )
        for study in studies:
            self._require_record(study)
            self._require_folder(study)
        foreign = [file for study, files in planned.items() for file in self._foreign(study, files, request)]
        if not (self.folder / LOCK).exists():
            foreign += [self.folder / name for name in TABLES if (self.folder / name).exists()]
        if foreign and not overwrite:
            raise FileExistsError(
                f"{foreign[0]}: exists, the first of {len(foreign)} files that this command has not made, or not with "
                "this bundle and these settings; choose another folder, or replace them (--overwrite, overwrite=True)."
            )

    def _require_one_map(self, studies: Sequence[Study]) -> None:
        picture = next((study for study in studies if study.kind == "picture"), None)
        if picture and may_overlap(self.names) and not self.settings.split:
            raise ValueError(
                f"{picture.files[0]}: one PNG cannot hold the classes {list(self.names.values())}, which may overlap; "
                "write one mask a class (--split, split=True)."
            )

    def _require_names(self, studies: Sequence[Study]) -> None:
        for study in studies:
            if study.name.split("/")[0].casefold() in RESERVED:
                raise ValueError(
                    f"{study.files[0]}: its outputs would be called {study.name}, as what a run writes; rename it."
                )
            if not _is_text(study.name):
                raise ValueError(
                    f"{study.files[0]!r}: its name is no text in UTF-8, so no table can hold it; rename it."
                )
            if len(study.name.split("/")[-1].encode()) > _LONGEST:
                raise ValueError(f"{study.files[0]}: its name is too long for what is made of it; shorten it.")

    def _require_record(self, study: Study) -> None:
        file = record_file(self.folder, study.name)
        if file.exists() and read_record(file) is None:
            raise FileExistsError(
                f"{file}: exists, and is no record of this command, which would replace it; choose another folder."
            )

    def _require_folder(self, study: Study) -> None:
        """Split masks come as a whole folder: it must hold nothing but what an earlier run wrote."""
        target, before = self.target(study), read_record(record_file(self.folder, study.name))
        if self.settings.split and target.exists():
            ours = {self.folder / name for name in (before.outputs if before else ())}
            if not target.is_dir() or set(target.iterdir()) - ours:
                raise FileExistsError(
                    f"{target}: exists, and holds what this command has not written; choose another folder."
                )

    def _foreign(self, study: Study, planned: Sequence[Path], request: Request) -> list[Path]:
        """The files in a case's way that no run with this request wrote."""
        there = [file for file in planned if file.exists()]
        before = read_record(record_file(self.folder, study.name)) if there else None
        return [] if before and matches_request(before, request) else there

    def clear(self, study: Study, before: Record | None) -> list[str]:
        """Take away what an earlier run wrote of a case; a file that was changed since is kept, and noted.

        Scores are replaced as they come. Of a run that was killed, unfinished files are removed.
        """
        files = (self._preview(study), self._scores(study), self._segmentation(study))
        for path in (self.target(study), record_file(self.folder, study.name), *map(self.folder.joinpath, files)):
            remove_parts(path)
        notes = []
        for name, hashed in (before.outputs if before else {}).items():
            file = self.folder / name
            if name == self._scores(study):
                continue
            if hashed == UNFINISHED or holds(file, hashed):
                file.unlink(missing_ok=True)
            elif file.exists():
                kept = _free(self.folder / CHANGED / name)
                make_directory(kept.parent)
                file.rename(kept)
                notes.append(f"{name} was changed since it was written: kept as {kept.relative_to(self.folder)}")
        return notes

    @contextmanager
    def scores(self, study: Study, image: Image) -> Iterator[Sink | None]:
        """What takes the scores, where they are asked for; the file appears when the block ends well."""
        if not self.settings.save_scores or image.grid is None:
            yield None
            return
        file = self.folder / self._scores(study)
        make_directory(file.parent)
        with score_file(file, image.grid, self.names) as sink:
            yield sink

    def write(self, study: Study, image: Image, labels: Labels, presence: Mapping[int, float]) -> Written:
        """Write the labels as the settings ask, measure and picture them.

        Raises:
            OSError: the folder cannot be written.
        """
        affine = np.eye(3) if image.grid is None else np.asarray(image.grid.affine, np.float64)
        labels, notes = self._kept(labels, affine)
        names = self.settings.wanted(self.names)
        self._write_labels(study, image, labels, names)
        if self.segmentations:
            self.segmentations.write(study, image, labels, self.folder / self._segmentation(study))
        measures = measure(labels, image.voxels[0], affine, names, study.name, presence, self.settings.box)
        if self.settings.previews:
            notes += self._draw(study, image, labels, names)
        files = [file for file in self.planned(study) if (self.folder / file).exists()]
        return Written(files, sidecar_labels(label_table(names))["labels"], measures, notes)

    def _kept(self, labels: Labels, affine: Affine) -> tuple[Labels, list[str]]:
        settings, axes = self.settings, len(affine) - 1
        labels, fewer = keep_largest(labels, find_ids(self.names, settings.keep_largest), axes)
        least = {find_ids(self.names, [name])[0]: ml for name, ml in settings.min_volume.items()}
        labels, small = min_volume(labels, least, affine)
        if settings.roi:
            labels = select(labels, find_ids(self.names, settings.roi), axes)
        gone = {"beside the largest part": fewer, "in parts that are too small": small}
        return labels, [
            f"{self.names[k]}: {n} voxels taken away {why}" for why, v in gone.items() for k, n in v.items()
        ]

    def _write_labels(self, study: Study, image: Image, labels: Labels, names: Mapping[int, str]) -> None:
        like = study.files[0] if image.grid is None else image.grid
        file = self.folder / self.labels(study)[0]
        if self.settings.split:
            make_directory((self.folder / study.name).parent)
            write_separate_masks(labels, names, like, self.folder / study.name)
            return
        make_directory(file.parent)
        if image.grid is None:
            write_label_image2d(labels, file)
        elif may_overlap(self.names):
            write_masks(labels, self.names, image.grid, file)
        else:
            write_labels(labels, image.grid, file, label_table(names))

    def _draw(self, study: Study, image: Image, labels: Labels, names: Mapping[int, str]) -> list[str]:
        file = self.folder / self._preview(study)
        make_directory(file.parent)
        affine = None if image.grid is None else image.grid.affine
        shown = image.voxels[0] if affine is not None or len(image.voxels) == 1 else np.moveaxis(image.voxels, 0, -1)
        try:
            save_overlay(shown, labels, affine, file, names, title=study.name)
        except ValueError as error:  # the labels are there all the same
            return [f"no preview: {error}"]
        return []

    def _preview(self, study: Study) -> str:
        return f"{PREVIEWS}/{study.name}.png"

    def _segmentation(self, study: Study) -> str:
        return f"{study.name}{SEGMENTATION}"

    def _scores(self, study: Study) -> str:
        return f"{SCORES}/{study.name}.nii"


def outputs_of(bundles: Sequence[Bundle], folder: Path, settings: Settings, request: Request) -> Outputs:
    """The files of a run of these bundles, which is asked for so.

    Raises:
        ValueError: a class that is not there, or codes of classes that cannot be used, where they are needed.
    """
    names, wanted = bundles[0].names, settings.wanted(bundles[0].names)
    roots = [bundle.root for bundle in bundles]
    return Outputs(folder, names, settings, segmentations_of(roots, request, wanted) if settings.dicom_seg else None)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _free(path: Path) -> Path:
    """The path, or with a number where it is taken."""
    number, free = 1, path
    while free.exists():
        number, free = number + 1, path.with_name(f"{number}_{path.name}")
    return free
