"""Channels in files of their own, named as nnU-Net names them: `<case>_0000`, `<case>_0001`, ..."""

import re
from collections.abc import Sequence
from pathlib import Path

from monai_unetfamily.volumes.layouts import Found
from monai_unetfamily.volumes.sources import stem

_CHANNEL = re.compile(r"(.+)_(\d{4})")  # case, channel


def join_channels(images: Sequence[Found], channels: int) -> list[Found]:
    """Join files of one folder and case as the channels of one image; one that is missing is named all the same.

    With one channel nothing is joined, and where all files of a folder end in `_0000` their names end without.

    Raises:
        ValueError: two files of one channel.

    >>> files = [Found((Path(name),)) for name in ("a_0000.nii", "a_0001.nii", "b.nii")]
    >>> [(image.name, len(image.files)) for image in join_channels(files, channels=2)]
    [('a', 2), ('', 1)]
    >>> [image.name for image in join_channels(files, channels=1)], join_channels(files[:1], channels=1)[0].name
    (['', '', ''], 'a')
    """
    return _joined(images, channels) if channels > 1 else _shortened(images)


def _joined(images: Sequence[Found], channels: int) -> list[Found]:
    cases: dict[Path | int, list[Path]] = {}
    for number, image in enumerate(images):
        case, _ = _parts(image)
        cases.setdefault(image.files[0].with_name(case) if case else number, []).append(image.files[0])
    return [_case(case, files, channels) if isinstance(case, Path) else images[case] for case, files in cases.items()]


def _case(case: Path, files: Sequence[Path], channels: int) -> Found:
    named: dict[int, Path] = {}
    for file in files:
        number = int(stem(file)[-4:])
        if number in named:
            both = f"{file}: is channel {number} of {case.name}, and {named[number]} is, too"
            raise ValueError(f"{both}; one file a channel is allowed, take one out or name it once")
        named[number] = file
    suffix = files[0].name[len(stem(files[0])) :]
    numbers = sorted({*range(channels), *named})
    return Found(tuple(named.get(n, case.with_name(f"{case.name}_{n:04}{suffix}")) for n in numbers), case.name)


def _shortened(images: Sequence[Found]) -> list[Found]:
    endings: dict[Path, set[str]] = {}
    for image in images:
        endings.setdefault(image.files[0].parent, set()).add(_parts(image)[1])
    return [
        Found(image.files, _parts(image)[0]) if endings[image.files[0].parent] == {"0000"} else image
        for image in images
    ]


def _parts(image: Found) -> tuple[str, str]:
    """Case and channel of a name; both empty where it has none, is given, or is a folder's."""
    alone = len(image.files) == 1 and not image.name and not image.files[0].is_dir()
    match = _CHANNEL.fullmatch(stem(image.files[0])) if alone else None
    return (match[1], match[2]) if match else ("", "")
