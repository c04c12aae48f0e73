"""A GPU's memory that does not suffice: what gives way, and in what order."""

from collections.abc import Callable

from monai_unetfamily.bundles.bundle import Bundle
from monai_unetfamily.inference.inferer import WindowInferer


def make_room(bundle: Bundle, error: RuntimeError, log: Callable[[str], None]) -> None:
    """Change a bundle's inferer, for this and all further volumes, so that it needs less of the GPU's memory.

    First the windows of a batch are halved, down to one; then the image stays and scores are summed on the CPU, where
    the network still runs on its device. Labels do not change, but for rounding.

    Raises:
        MemoryError: nothing is left to give way.
    """
    inferer = bundle.inferer
    if not isinstance(inferer, WindowInferer):
        raise MemoryError(f"{bundle.device} is out of memory; choose a smaller window, or --device cpu.") from error
    if inferer.sw_batch_size > 1:
        inferer.sw_batch_size //= 2
        log(f"{bundle.device} is out of memory: from now on windows are run {inferer.sw_batch_size} at once.")
    elif inferer.device is None:
        inferer.device, inferer.sw_device = "cpu", bundle.device
        log(f"{bundle.device} is out of memory: from now on scores are summed on the CPU, windows run as before.")
    else:
        raise MemoryError(
            f"{bundle.device} is out of memory with one window of {inferer.roi_size} voxels; choose a smaller "
            "roi_size, or --device cpu."
        ) from error
