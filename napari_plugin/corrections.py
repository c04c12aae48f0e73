"""Which labels are somebody's work, and not yet in a file."""

from collections.abc import Hashable, Sequence

from napari.layers import Labels

from napari_plugin.measuring import fingerprint

_UNKNOWN = -1  # no fingerprint


class Corrections:
    """Layers held against the fingerprints of what their run made, or of what was saved of them last.

    >>> import numpy as np
    >>> layer, corrections = Labels(np.zeros((3, 3), np.uint8)), Corrections()
    >>> corrections.made([layer], [fingerprint(layer.data)])
    >>> layer.data[1, 1] = 1
    >>> corrections.any_in(layer)
    True
    """

    def __init__(self) -> None:
        self._known: dict[Hashable, int] = {}

    def made(self, layers: Sequence[Labels], fingerprints: Sequence[int]) -> None:
        """These are what a run made, unless something else is known of a layer."""
        for layer, found in zip(layers, fingerprints, strict=True):
            self._known.setdefault(layer.unique_id, found)

    def begun(self, layers: Sequence[Labels]) -> None:
        """Layers may be changed from now on: one of which it is not known what its run made counts as changed."""
        self.made(layers, [_UNKNOWN] * len(layers))

    def saved(self, layers: Sequence[Labels], fingerprints: Sequence[int]) -> None:
        """These are in a file."""
        self._known |= {layer.unique_id: found for layer, found in zip(layers, fingerprints, strict=True)}

    def any_in(self, layer: Labels, now: int | None = None) -> bool:
        """Whether a layer holds any; `now` is its present fingerprint, where it is known."""
        before = self._known.get(layer.unique_id)
        return before is not None and before != (fingerprint(layer.data) if now is None else now)
