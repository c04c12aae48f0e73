"""MONAI Label's server with our bundles, in an environment of its own: `.venv-monailabel` in the checkout.

    python .ci/test_monailabel.py

MONAI Label 0.8.5 is of 2024, and two packages that it asks for, numpymaxflow and pydicom-seg, allow no numpy 2; with
pydicom 3, which it allows, pydicom-seg cannot be imported. torch and MONAI are those of constraints.txt. Exit status: 0
if what `.ci/monai_label.py` states holds.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".venv-monailabel"
SAME = ("torch", "monai", "pytorch-ignite")  # in constraints.txt
LABEL = ("monailabel==0.8.5", "numpy<2", "pydicom<3")
SHOWN = ("monailabel", "torch", "monai", "numpy", "scipy", "fastapi", "pydicom", "numpymaxflow", "pydicom-seg", "sam2")
VERSIONS = "import sys\nfrom importlib.metadata import version\nfor name in sys.argv[1:]: print(name, version(name))"


def pins() -> list[str]:
    """The lines of constraints.txt that hold here, too.

    "===" is the build that the package index has, never a local one such as 2.13.0+cpu: MONAI Label imports
    torchvision, whose build has to be that of torch.
    """
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    return [line.replace("==", "===") for line in lines if line.partition("==")[0] in SAME]


def install() -> Path:
    """Make or renew the environment; returns its interpreter.

    sam2 comes as source alone, and to build it by itself pip would fetch a second torch: so torch comes first.
    """
    if not (FOLDER / "bin/pip").is_file():
        subprocess.run([sys.executable, "-m", "venv", "--clear", FOLDER], check=True)
    python = FOLDER / "bin/python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *pins(), *LABEL[1:]]
    subprocess.run([*pip, "-e", ROOT, "setuptools>=77.0.1", "wheel", "pytest>=8"], check=True)
    environment = os.environ | {"SAM2_BUILD_CUDA": "0"}
    subprocess.run([*pip, "--no-build-isolation", *LABEL, "-e", ROOT], check=True, env=environment)
    return python


def main() -> int:
    """Install, say what, and test."""
    print(f"== MONAI Label, in {FOLDER.name} (about 8 GB) ==", flush=True)
    python = install()
    subprocess.run([python, "-c", VERSIONS, *SHOWN], check=True)
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=", ROOT / ".ci/monai_label.py"]
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"  # the command monailabel runs the first python there
    environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
