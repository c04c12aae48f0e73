"""Cases that are preprocessed once and mapped into memory, and the number of processes that load them."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from enum import Enum
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, MapTransform
from monai.utils import convert_to_tensor
from torch import Tensor
from torch import distributed as dist
from tqdm import tqdm

from monai_unetfamily.data.dataset import image_files
from monai_unetfamily.io import atomic_file, make_directory, stem

# How many processes load and augment, as training configs ask.


def worker_processes() -> int:
    """Processes beside this one for each of the trainings on this machine (torchrun's LOCAL_WORLD_SIZE): 12 at most.

    Two cores are left to the training itself where there are so many; with two or fewer it augments by itself.

    >>> worker_processes() >= 0
    True
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(0, min(12, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 2))


# Cases preprocessed once and mapped into memory: training reads of a volume no more than the patch that it crops.

_FILE = "preprocessed"  # a case's key for the file that holds it
_THREADS = 8  # at most: each holds a volume


def preprocess(
    cases: Sequence[Mapping[str, Any]], transforms: Sequence[Callable[[Any], Any]] | Compose, cache_dir: Path | str
) -> list[dict[str, Any]]:
    """Bring each case through deterministic transforms, once, and return the cases with the files of the results.

    A file is named by a hash of the case's files (path, size, time of change) and of the transforms, so that what has
    changed is made anew, and runs may share a folder. In a group of processes (torchrun) each makes its share. Files
    of cases or transforms that are no longer used stay until the folder is deleted, which loses nothing but time.

    Args:
        cases: `{"image": path, "label": path}`, an image perhaps a list of paths; other keys are passed on.
        transforms: what `OpenPreprocessedd` shall not do again; their results are tensors, numbers, or lists of them.
        cache_dir: folder for the files; made when missing. It needs the room of the preprocessed volumes.

    Raises:
        OSError: where the folder cannot be written, or is full.
        RuntimeError: what a transform raises.
    """
    steps = transforms.flatten().transforms if isinstance(transforms, Compose) else transforms
    folder = Path(cache_dir)
    make_directory(folder)
    listed = [{**case, _FILE: str(folder / _name(case, steps))} for case in cases]
    missing = [case for case in _share(listed) if not Path(case[_FILE]).exists()]
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        made = pool.map(lambda case: _make(case, Compose(deepcopy(steps))), missing)  # readers keep what they read
        list(tqdm(made, desc="preprocessing", total=len(missing), unit="case", disable=None if missing else True))
    if dist.is_initialized():
        dist.barrier()
    return listed


class OpenPreprocessedd(MapTransform):
    """Replace a case that `preprocess` made by its tensors, mapped from the file: nothing is read until it is used.

    Tensors of several axes under these keys come as MetaTensor with their affine; all others as they were saved.

    Args:
        keys: of images and labels.
    """

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """The case's other keys stay."""
        case = torch.load(data[_FILE], mmap=True, weights_only=True)
        affines = case.pop("affines")
        return {**data, **case, **{key: MetaTensor(case[key], affine=affines[key]) for key in self.key_iterator(case)}}


def _name(case: Mapping[str, Any], transforms: Sequence[Callable[[Any], Any]]) -> str:
    files = [*image_files(case), Path(case["label"])]
    stated = [(str(file.absolute()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    key = sha256(json.dumps([stated, _describe(list(transforms))]).encode()).hexdigest()
    return f"{stem(files[-1])}-{key[:16]}.pt"


def _describe(thing: Any) -> Any:
    """A transform, or what it is made of, as JSON that is the same in every process; random states say nothing."""
    if isinstance(thing, list | tuple):
        return [_describe(part) for part in thing]
    if isinstance(thing, Mapping):
        return {str(key): _describe(part) for key, part in sorted(thing.items(), key=lambda pair: str(pair[0]))}
    if isinstance(thing, np.ndarray | Tensor):
        return thing.tolist()
    if isinstance(thing, np.random.RandomState):
        return None
    if isinstance(thing, partial):
        return [_describe(part) for part in (thing.func, thing.args, thing.keywords)]
    if isinstance(thing, CodeType):
        return [thing.co_code.hex(), thing.co_names, _describe(thing.co_consts)]
    if isinstance(thing, FunctionType) and thing.__name__ == "<lambda>":
        captured = [cell.cell_contents for cell in thing.__closure__ or ()]
        return _describe([thing.__code__, thing.__defaults__, captured])
    if isinstance(thing, type) or (callable(thing) and hasattr(thing, "__qualname__")):
        return f"{thing.__module__}.{thing.__qualname__}"
    if hasattr(thing, "__dict__") and not isinstance(thing, Enum):
        return [_describe(type(thing)), _describe(vars(thing))]
    return str(thing)


def _share(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """This process's cases of all."""
    if not dist.is_initialized():
        return cases
    return cases[dist.get_rank() :: dist.get_world_size()]


def _make(case: Mapping[str, Any], transform: Compose) -> None:
    done = {key: value for key, value in transform(dict(case)).items() if key not in case or value is not case[key]}
    affines = {key: value.affine for key, value in done.items() if isinstance(value, MetaTensor)}
    tensors = convert_to_tensor(done, track_meta=False) | {"affines": affines}
    if "label" in done:
        tensors["label"] = _packed(tensors["label"])
    with atomic_file(Path(case[_FILE])) as stream:
        torch.save(tensors, stream)


def _packed(label: Tensor) -> Tensor:
    """As bytes where nothing is lost: a quarter of the room."""
    packed = label.to(torch.uint8)
    return packed if torch.equal(packed.to(label.dtype), label) else label.contiguous()
