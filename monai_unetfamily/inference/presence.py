"""What a guided network says of a whole case: the probability that each class is somewhere in it."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from monai_unetfamily.nets.cgm import ClassificationGuide


class Presence:
    """Gathers the guides' logits (N, classes) of a case's windows."""

    def __init__(self) -> None:
        self._most: dict[nn.Module, Tensor] = {}

    def add(self, guide: nn.Module, logits: Tensor) -> None:
        """Take the logits of some windows."""
        most = logits.detach().float().amax(0).cpu()
        self._most[guide] = torch.maximum(self._most.get(guide, most), most)

    def probabilities(self) -> dict[int, float]:
        """Foreground class, counted from 1 -> the largest of its windows; of several networks the mean."""
        if not self._most:
            return {}
        mean = torch.stack([most.sigmoid() for most in self._most.values()]).mean(0)
        return {label: round(p, 6) for label, p in enumerate(mean.tolist(), start=1)}


@contextmanager
def watch_guides(networks: Sequence[nn.Module]) -> Iterator[Presence]:
    """Gather what the guides of these networks say while they run; nothing, where there are none.

    >>> guide = ClassificationGuide(2, 4, 3).eval()
    >>> with watch_guides([guide]) as presence:
    ...     _ = guide(torch.zeros(1, 4, 2, 2)), guide(torch.zeros(1, 4, 2, 2))
    >>> sorted(presence.probabilities())
    [1, 2]
    """
    presence = Presence()
    with ExitStack() as stack:
        for guide in (m for network in networks for m in network.modules() if isinstance(m, ClassificationGuide)):
            hook = guide.register_forward_hook(lambda module, _, logits: presence.add(module, logits))
            stack.callback(hook.remove)
        yield presence
