"""What a prediction costs: time, memory, operations, also of variants that need no training."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from dataclasses import replace
from math import nan
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from monai.utils import ensure_tuple_rep

from monai_unetfamily.bundles import Bundle, image_shape, network_definition, open_bundle
from monai_unetfamily.cohort import FAILURES
from monai_unetfamily.data import case_study
from monai_unetfamily.nets import UNetPlusPlus, count_macs
from monai_unetfamily.prediction import Case, Settings, adapt, choices, load_case, segment

# Ways of a trained bundle to predict that need no weights of their own.


PredictionVariant = tuple[str, str]  # a network and a variant of it
_PLAIN = Settings(previews=False)


def variants(bundle: Bundle) -> dict[str, Settings]:
    """A way to predict with a trained bundle: unchanged (""), or a variant that needs no other weights.

    A UNet++ is cut at each level but its last; a guide's gate is opened.
    """
    found, names = {"": _PLAIN}, [name for label, name in bundle.names.items() if label]
    chosen = choices(bundle)
    if isinstance(bundle.network, UNetPlusPlus) and bundle.network.joined == "all":
        found |= {f"L{level}": replace(_PLAIN, level=level) for level in chosen.levels[:-1]}
    if chosen.presence:
        found["ungated"] = replace(_PLAIN, presence=dict.fromkeys(names, 0.0))
    return found


# The cost of prediction: interleaved times, memory in a fresh process, operations counted on meta tensors.

_TIMED = 8  # cases at most
_STATUS = Path("/proc/self/status")  # of Linux
_PRELOADED = ["monai_unetfamily.comparison.prediction_cost"]

Log = Callable[[str], None]


def size_of(bundle: Bundle, settings: Settings) -> tuple[int, int]:
    """Parameters of a bundle's network as the settings change it, and multiply-accumulate operations of its window."""
    network, definition = adapt(bundle, settings).network, network_definition(bundle.root)
    window = ensure_tuple_rep(getattr(bundle.inferer, "roi_size", 0), definition["spatial_dims"])
    window = window if min(window) > 0 else image_shape(bundle.root)
    macs = count_macs(deepcopy(network).to("meta"), (1, definition["in_channels"], *window))
    return sum(p.numel() for p in network.parameters()), macs


def time_interleaved(
    directories: Mapping[str, Path], cases: Sequence[Mapping[str, Any]], device: torch.device, log: Log
) -> dict[PredictionVariant, float]:
    """Seconds for a volume, of each network and variant: the median of some cases, each segmented by all in turn.

    Windows, blending and the way back to the volume's own grid are timed; reading and writing are not. A first case
    warms up. A network that fails has nan.

    Args:
        rooms: network -> its trained bundle; all have the same preprocessing.
        cases: as `load_cases` gives them; the first eight are timed.
        device: where networks run.
        log: is given a line a case.
    """
    bundles = {name: open_bundle(directory, device) for name, directory in directories.items()}
    ways = {
        (name, variant): adapt(bundle, settings)
        for name, bundle in bundles.items()
        for variant, settings in variants(bundle).items()
    }
    seconds: dict[PredictionVariant, list[float]] = {way: [] for way in ways}
    timed = cases[:_TIMED]
    for number, case in enumerate([timed[0], *timed]):
        _, prepared = load_case(next(iter(bundles.values())), case_study(case))
        for way, bundle in ways.items():
            spent = _time(bundle, prepared, log)
            if number:
                seconds[way].append(spent)
        log(f"timed {len(ways)} networks and variants on volume {number} of {len(timed)}" if number else "warmed up")
    return {way: median(spent) for way, spent in seconds.items()}


def peak_bytes(directory: Path, variant: str, case: Mapping[str, Any], device: str) -> float:
    """The most memory that the prediction of a case adds to what its process holds, measured in a fresh one.

    On a GPU that of its allocator; on a CPU that of the process, which Linux alone tells: elsewhere nan.
    """
    method = "forkserver" if "forkserver" in get_all_start_methods() else "spawn"
    context = get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(_PRELOADED)
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_peak, directory, variant, case, device, torch.get_num_threads()).result()


def _peak(directory: Path, variant: str, case: Mapping[str, Any], device: str, threads: int) -> float:
    torch.set_num_threads(threads)
    opened = open_bundle(directory, torch.device(device))
    bundle = adapt(opened, variants(opened)[variant])
    _, prepared = load_case(bundle, case_study(case))
    on_gpu = bundle.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(bundle.device)
        before: float = torch.cuda.memory_allocated(bundle.device)
    else:
        before = _forget_peak()
    _segment(bundle, prepared)
    return (torch.cuda.max_memory_allocated(bundle.device) if on_gpu else _resident("VmHWM")) - before


def _forget_peak() -> float:
    """Bytes of this process now, from which its high-water mark starts again."""
    if not _STATUS.is_file():
        return nan
    _STATUS.with_name("clear_refs").write_text("5", "utf-8")
    return _resident("VmRSS")


def _resident(field: str) -> float:
    if not _STATUS.is_file():
        return nan
    (line,) = (line for line in _STATUS.read_text("utf-8").splitlines() if line.startswith(f"{field}:"))
    return 1024.0 * int(line.split()[1])


def _time(bundle: Bundle, case: Case, log: Log) -> float:
    start = perf_counter()
    try:
        _segment(bundle, case)
    except FAILURES as error:
        log(f"{bundle.root}: cannot be timed: {error}")
        return nan
    return perf_counter() - start


@torch.inference_mode()
def _segment(bundle: Bundle, case: Case) -> None:
    """Labels end up in this machine's memory, so that a GPU has done its work."""
    for _ in segment(bundle, case, log=lambda line: None):
        pass
