"""Two label maps counted together: how many voxels are of one class here and of another there, and where."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from monai_unetfamily.evaluation.matching import Match
from monai_unetfamily.volumes.nifti import Labels

AGREE, ONLY_A, ONLY_B, OTHER = range(4)  # kinds of difference: `differences.Comparison` says what they mean
LARGEST_LABEL = 65535  # uint16: tables over all ids stay small

Counts = NDArray[np.int64]


class Codes:
    """Label ids as numbers that both maps share: 0 background, 1 to n the matches, n + 1 what is ignored."""

    def __init__(self, matches: Sequence[Match], ignored_a: int | None, ignored_b: int | None) -> None:
        self.matches, self.count = matches, len(matches) + 2
        shared = [number for number, match in enumerate(matches, start=1) if match.shared]
        self.compared = np.zeros(self.count, np.int32)  # code -> itself, or 0 of a class that one map alone knows
        self.compared[shared] = shared
        self._of_a = self._table([match.a for match in matches], ignored_a) * np.int32(self.count)
        self._of_b = self._table([match.b for match in matches], ignored_b)

    def joint(self, a: Labels, b: Labels) -> NDArray[np.int32]:
        """The codes of both maps in one number: count * code in A + code in B."""
        joint: NDArray[np.int32] = self._of_a[a] + self._of_b[b]
        return joint

    def unlike(self, a: Labels, b: Labels, number: int) -> NDArray[np.bool_]:
        """Where one of two maps alone holds a class; nowhere where either is ignored."""
        of_a, of_b = np.divmod(self.joint(a, b), self.count)
        last = self.count - 1
        unlike: NDArray[np.bool_] = ((of_a == number) ^ (of_b == number)) & (of_a < last) & (of_b < last)
        return unlike

    def kinds(self) -> NDArray[np.uint8]:
        """Joint code -> kind of difference."""
        a, b = np.meshgrid(self.compared, self.compared, indexing="ij")
        kinds = np.where(a == b, AGREE, np.where(b == 0, ONLY_A, np.where(a == 0, ONLY_B, OTHER))).astype(np.uint8)
        kinds[-1], kinds[:, -1] = AGREE, AGREE
        return kinds.ravel()

    def _table(self, ids: Sequence[int | None], ignored: int | None) -> NDArray[np.int32]:
        table = np.zeros(LARGEST_LABEL + 1, np.int32)
        for code, label in enumerate([*ids, ignored], start=1):
            if label is not None:
                table[label] = code
        return table


class Sums:
    """What a pass over the layers adds up."""

    def __init__(self, shape: tuple[int, ...], slow: int, codes: Codes) -> None:
        self._codes, self._slow, self._kinds = codes, slow, codes.kinds()
        self.pairs = np.zeros(codes.count**2, np.int64)  # joint code -> voxels
        self.profiles = [np.zeros((codes.count, size), np.int64) for size in shape]  # code -> differing, by slice

    def add(self, layer: int, joint: NDArray[np.int32], drawn: NDArray[np.uint8]) -> None:
        """Count a layer, and draw its kinds."""
        self.pairs += np.bincount(joint.ravel(), minlength=self.pairs.size)
        drawn[...] = self._kinds[joint]
        places = np.nonzero(drawn)
        both = self._codes.compared[np.stack(np.divmod(joint[places], self._codes.count))]  # (2, differing)
        fast = [axis for axis in range(len(self.profiles)) if axis != self._slow]
        for axis, positions in zip(fast, places, strict=True):
            profile = self.profiles[axis]
            found = np.bincount((both * profile.shape[1] + positions).ravel(), minlength=profile.size)
            profile += found.reshape(profile.shape)
        self.profiles[self._slow][:, layer] = np.bincount(both.ravel(), minlength=self._codes.count)

    def square(self) -> Counts:
        """Voxels by code in A and code in B, without those that are ignored."""
        return self.pairs.reshape(self._codes.count, -1)[:-1, :-1]
