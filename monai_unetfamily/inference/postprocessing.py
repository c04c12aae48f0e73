"""What a bundle's postprocessing makes of scores, where it is MONAI's usual: `Invertd`, then `AsDiscreted`."""

from typing import Any

from monai.transforms import AsDiscreted, Compose, Invertd

from monai_unetfamily.bundles.bundle import Bundle
from monai_unetfamily.inference.inferer import WindowInferer
from monai_unetfamily.inference.inversion import NotSeparable
from monai_unetfamily.inference.restore import Rule
from monai_unetfamily.volumes.masks import may_overlap


def steps_of(postprocess: Any) -> list[Any]:
    """The transforms of a postprocessing, in order."""
    return list(postprocess.flatten().transforms) if isinstance(postprocess, Compose) else [postprocess]


def inverts(bundle: Bundle) -> bool:
    """Whether scores are brought back through the preprocessing; otherwise labels stay on the bundle's grid."""
    return len(steps_of(bundle.postprocess)) > 1


def rule_of(bundle: Bundle) -> Rule:
    """How scores become labels, if by nothing but `Invertd` (or not even that) and `AsDiscreted`.

    Raises:
        NotSeparable: another postprocessing, or one that this bundle's names of classes do not fit.
    """
    *before, last = steps_of(bundle.postprocess) or [None]
    if len(before) > 1 or not all(_brings_back(step, bundle) for step in before) or not _is_plain(last):
        raise NotSeparable("its postprocessing is not Invertd (nearest_interp: false), then AsDiscreted of pred alone")
    threshold = last.threshold[0]
    if last.argmax[0] == (may_overlap(bundle.names) or len(bundle.names) == 1):
        raise NotSeparable("its AsDiscreted does not fit its channel_def")
    return Rule(threshold, _least(bundle, threshold))


def _brings_back(step: Any, bundle: Bundle) -> bool:
    if not isinstance(step, Invertd) or step.transform is not bundle.preprocess:
        return False
    settings = (step.keys, step.orig_keys, step.nearest_interp, step.device, step.post_func)
    return settings == (("pred",), ("image",), (False,), (None,), (None,))


def _is_plain(step: Any) -> bool:
    if not isinstance(step, AsDiscreted) or step.keys != ("pred",) or step.converter.kwargs:
        return False
    either = bool(step.argmax[0]) != (step.threshold[0] is not None)
    return either and (step.to_onehot[0], step.rounding[0]) == (None, None)


def _least(bundle: Bundle, threshold: float | None) -> float:
    """What a class needs somewhere to label a voxel: interpolation makes nothing higher than what it is made of."""
    if threshold is not None:
        return threshold if threshold > 0 else -float("inf")
    inferer = bundle.inferer
    sums_to_one = isinstance(inferer, WindowInferer) and inferer.background and str(inferer.dtype) == "torch.float32"
    return (
        0.5 / len(bundle.names) if sums_to_one else -float("inf")
    )  # the best of n has 1 / n; half of it is for rounding
