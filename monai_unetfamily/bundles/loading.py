"""How many processes load and augment, as training configs ask."""

import os


def worker_processes() -> int:
    """Processes beside this one for each of the trainings on this machine (torchrun's LOCAL_WORLD_SIZE): 12 at most.

    Two cores are left to the training itself where there are so many; with two or fewer it augments by itself.

    >>> worker_processes() >= 0
    True
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(0, min(12, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 2))
