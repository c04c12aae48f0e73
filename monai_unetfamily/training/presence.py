"""The windows of prediction over labelled cases: what the guide says of each, and what its reference holds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from monai.utils import convert_to_tensor
from torch import Tensor

from monai_unetfamily.bundles.bundle import Bundle
from monai_unetfamily.losses import GuidedLoss

Presence = Callable[[Tensor], Tensor]
Load = Callable[[Mapping[str, str]], Mapping[str, Tensor]]


@dataclass(frozen=True)
class WindowPresence:
    """Of W windows and C foreground classes, each (W, C): presence logits, which are held, which surely absent."""

    presence: Tensor
    held: Tensor
    absent: Tensor


class GuideWatch:
    """Stands in for a guided network in an inferer, and remembers the windows that it is given.

    An input has the image's channels, then the label's, for each slice of a 2.5-D window in turn; the label's are
    split off, the middle slice's are the reference. What it gives back is as large as logits, and all zeros.

    Args:
        presence: maps images (N, channels, *window) to presence logits (N, classes).
        loss: says which classes a window holds.
        image_channels, label_channels: of the volume.
        out_channels: of what it gives back.
    """

    def __init__(
        self, presence: Presence, loss: GuidedLoss, image_channels: int, label_channels: int, out_channels: int
    ) -> None:
        self.presence = presence
        self.loss = loss
        self.channels = (image_channels, label_channels)
        self.out_channels = out_channels
        self.seen: list[WindowPresence] = []

    def __call__(self, x: Tensor) -> Tensor:
        """Zeros (N, out_channels, *window) of windows (N, slices * channels, *window)."""
        images, labels = x.unflatten(1, (-1, sum(self.channels))).split(self.channels, dim=2)
        presence = self.presence(images.flatten(1, 2)).float()
        reference = labels[:, labels.shape[1] // 2].clamp(min=0)  # below is what an inferer pads with
        held, absent = self.loss.held_and_absent(reference, presence.shape[1])
        self.seen.append(WindowPresence(presence.cpu(), held.cpu(), absent.cpu()))
        return x.new_zeros(len(x), self.out_channels, *x.shape[2:])


@torch.inference_mode()
def watch_windows(
    bundle: Bundle,
    presence: Presence,
    loss: GuidedLoss,
    load: Load,
    cases: Sequence[Mapping[str, str]],
    log: Callable[[str], None],
) -> WindowPresence:
    """All windows that the bundle's inferer sees of the cases, `{"image": path, "label": path}`.

    Args:
        presence: as `GuideWatch` takes it.
        load: maps a case to its image and its label (C, *spatial), as validation does.

    Raises:
        ValueError: where prediction's preprocessing brings an image elsewhere than `load` does.
    """
    seen: list[WindowPresence] = []
    for case in cases:
        image, label = _load(bundle, load, case)
        watch = GuideWatch(presence, loss, len(image), len(label), len(bundle.names))
        with torch.autocast(bundle.device.type, enabled=bundle.device.type == "cuda"):
            bundle.inferer(torch.cat([image, label])[None].to(bundle.device), watch)
        log(f"{sum(len(each.held) for each in watch.seen)} windows of {case['image']}")
        seen += watch.seen
    return WindowPresence(
        *(torch.cat([getattr(each, part) for each in seen]) for part in ("presence", "held", "absent"))
    )


def _load(bundle: Bundle, load: Load, case: Mapping[str, str]) -> tuple[Tensor, Tensor]:
    image, validated = bundle.preprocess({"image": case["image"]})["image"], load(case)
    if image.shape != validated["image"].shape or not torch.allclose(image, validated["image"], atol=1e-4):
        raise ValueError(
            f"{case['image']}: prediction and validation see other images of it ({tuple(image.shape)} and "
            f"{tuple(validated['image'].shape)}): make the preprocessing of {bundle.root.name}'s inference and train "
            "configs agree."
        )
    label = validated["label"].to(image.dtype)
    return convert_to_tensor(image), convert_to_tensor(label)  # without the maps to the patient
