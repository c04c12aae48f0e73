"""Compare predictions with references: overlap, surface distance and volume, per case and class.

Definitions, after Maier-Hein et al., "Metrics reloaded", Nature Methods 21 (2024), computed by MONAI:

- **dice** = 2 |P and R| / (|P| + |R|) over voxels; 1 is perfect.
- **hd95**: a surface is the set of class voxels with a face on something else, or on the volume's edge.
  Every voxel of P's surface has a distance in mm, between centres, to the nearest voxel of R's surface; the
  95th percentile of these (interpolated linearly) is one direction, R to P is the other, and hd95 is the
  *larger of the two*. Packages that pool both directions before the percentile report smaller numbers.
- **surface_dice** at a tolerance in mm: the share of both surfaces' *area* that lies within the tolerance of
  the other surface (Nikolov et al., JMIR 23(7), 2021). Surfaces here run between voxels and each piece weighs
  its mm2, so that thick slices do not distort it (MONAI's `use_subvoxels=True`; its default counts voxels).

Classes that overlap are scored each by itself: a voxel counts for every class that holds it.

Pictures are scored alike in pixels, for which HD95 and the tolerance then stand (`unit` is "px"): lines between pixels
take the place of surfaces, and a volume there is none (nan).

A class that is in neither volume has no score (nan) and enters no mean. A class in only one of them is a
failure and counts as one: dice 0, surface dice 0, hd95 inf. MONAI's own functions return nan there, which
would drop exactly the worst cases from a mean.
"""

from lazy_loader import attach_stub

__getattr__, _, __all__ = attach_stub(__name__, __file__)
