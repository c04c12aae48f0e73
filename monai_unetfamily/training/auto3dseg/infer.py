"""What Auto3DSeg's ensembles ask of an algorithm: the class probabilities of an image."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor

from monai_unetfamily.bundles.bundle import open_bundle
from monai_unetfamily.inference.device import choose_device
from monai_unetfamily.inference.predictor import load_case
from monai_unetfamily.inference.segment import segment
from monai_unetfamily.training.auto3dseg.algorithm import folder_of
from monai_unetfamily.volumes.studies import Image, Study, find_studies


class InferClass:
    """A trained fold, as `BundleAlgo.predict` opens it.

    Args:
        config_file: `configs/hyper_parameters.yaml` of the algorithm.
        override: `device`; the ensemble's own parameters change nothing here.
    """

    def __init__(self, config_file: str | Sequence[str], **override: Any) -> None:
        device = override.get("device") or "auto"
        self.bundle = open_bundle(folder_of(config_file) / "bundle", choose_device(device))

    @torch.inference_mode()
    def infer(self, image_file: str | Mapping[str, str]) -> MetaTensor:
        """Probabilities (C, X, Y, Z), background first, on the image's own grid, whose affine goes with them.

        The best class of each voxel is the label that `predict` writes.

        Raises:
            FileNotFoundError, ValueError: the file cannot be segmented; the message names it and says why.
        """
        path = Path(image_file["image"] if isinstance(image_file, Mapping) else image_file)
        studies = find_studies([path]).studies
        if len(studies) != 1:
            raise ValueError(f"{path}: holds {len(studies)} images; one is meant here, name it.")
        image, scores = self._scores(studies[0])
        affine = np.eye(4) if image.grid is None else np.asarray(image.grid.affine, np.float64)
        meta = {"filename_or_obj": str(path)}
        return MetaTensor(torch.from_numpy(scores), affine=torch.from_numpy(affine), meta=meta)

    def _scores(self, study: Study) -> tuple[Image, np.ndarray[Any, np.dtype[np.float32]]]:
        image, case = load_case(self.bundle, study)
        scores = np.zeros((len(self.bundle.names), *case.shape), np.float32)

        def take(where: tuple[slice, ...], channel: int, values: np.ndarray[Any, np.dtype[np.float32]]) -> None:
            scores[channel][where] = values

        for _ in segment(self.bundle, case, sink=take):
            pass
        return image, scores
