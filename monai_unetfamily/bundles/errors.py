"""Why something failed, in one line: the innermost reason, and for what libraries say badly, its cause and the fix."""

import re

_KNOWN = {  # what a library says -> cause and fix
    r"shared memory|\bbus error|/dev/shm|unable to write to file </torch_": (
        "too little shared memory (/dev/shm) for the processes that load cases: enlarge it (docker run --shm-size=8g), "
        "or set num_workers: 0 in the train config"
    ),
    r"DataLoader worker .* (exited unexpectedly|is killed by signal)": (
        "a process that loads cases died, most often because memory ran out: set a smaller num_workers in the train "
        "config, or 0"
    ),
    r"could not (create|execute) a primitive|can't allocate memory|not enough memory|CUDA out of memory|"
    r"Cannot allocate memory|Unable to allocate|^MemoryError$": (
        "out of memory: free some, use a machine with more, or to train set a smaller batch_size or patch_size"
    ),
}
_PACKAGE = re.compile(r"required package `([\w.-]+)`|No module named '(\w+)")
_PIP = {"cv2": "opencv-python", "nrrd": "pynrrd", "PIL": "pillow", "skimage": "scikit-image", "yaml": "pyyaml"}


def reason_of(error: BaseException) -> str:
    """The innermost reason of an error, in one line: MONAI wraps what went wrong in what it was doing.

    >>> try:
    ...     raise RuntimeError("Failed to instantiate") from ValueError("features is (); give one width")
    ... except RuntimeError as error:
    ...     reason_of(error)
    'features is (); give one width'
    >>> reason_of(ImportError("required package `itk` is not installed or the version doesn't match requirement."))
    "the package 'itk' is missing, or too old: pip install -U itk"
    """
    while error.__cause__ is not None:
        error = error.__cause__
    return explained(error)


def explained(error: BaseException) -> str:
    """The error's own text in one line; cause and fix before it where a library does not name them.

    >>> explained(RuntimeError("could not create a primitive"))
    'out of memory: free some, ... (could not create a primitive)'
    >>> explained(ValueError("ct.nii: has no voxel"))
    'ct.nii: has no voxel'
    """
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, ImportError) and (found := _PACKAGE.search(text)):
        package = found[1] or found[2]
        return f"the package {package!r} is missing, or too old: pip install -U {_PIP.get(package, package)}"
    for pattern, meaning in _KNOWN.items():
        if re.search(pattern, text, re.IGNORECASE):
            return text if meaning in text else f"{meaning} ({text})"
    return text
