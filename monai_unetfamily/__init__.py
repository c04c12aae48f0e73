"""The U-Net family for MONAI.

Public names are imported when they are first used, so that `import monai_unetfamily` itself loads neither torch, MONAI
nor NumPy; `__init__.pyi` lists them with their types. So do all packages below.
No `__dir__` lists names that are not loaded: MONAI's ComponentLocator calls inspect.getmembers on every module whose
name starts with "monai", and would import them all.

>>> import monai_unetfamily as uf
>>> uf.list_networks()
['fcn32s', 'fcn16s', 'fcn8s', 'unet', 'unet_e', 'unet_plus', 'unetplusplus', 'unet3plus']
"""

import os

from lazy_loader import attach_stub

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # MLflow, with the extra `tracking`, would report its use

__version__ = "0.1.0"

__getattr__, _, __all__ = attach_stub(__name__, __file__)
