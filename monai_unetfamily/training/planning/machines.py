"""What a plan is made for: a GPU with so much memory, or a CPU."""

from dataclasses import dataclass

from monai_unetfamily.training.planning.cost import USABLE, StepCost
from monai_unetfamily.training.planning.decisions import Decision

MEMORY_GB = 8.0  # a common GPU, and nnU-Net's
_LEAST_MINUTES = 4.0  # in fewer no patch that is worth it learns anything


@dataclass(frozen=True)
class Machine:
    """Memory in GB (2^30 bytes), whether a GPU does the work, and its minutes where they are counted.

    Raises:
        ValueError: no memory.
    """

    memory_gb: float = MEMORY_GB
    gpu: bool = True
    minutes: float | None = None

    def __post_init__(self) -> None:
        if not self.memory_gb > 0:
            raise ValueError(f"memory is {self.memory_gb:g} GB; more than 0 is needed.")

    @property
    def mixed_precision(self) -> bool:
        """Whether maps take 16 bits."""
        return self.gpu

    @property
    def width(self) -> int:
        """Of the first stage."""
        return 32 if self.gpu else 16

    def widest(self, spatial_dims: int) -> int:
        """Of any stage (on a GPU as nnU-Net has it)."""
        return {2: 512, 3: 320}[spatial_dims] if self.gpu else 128

    @property
    def gmac(self) -> float:
        """Multiply-accumulate operations that a patch may cost forward, in 10^9."""
        return float("inf") if self.gpu else 25.0

    @property
    def patch_gb(self) -> float:
        """That the maps of a patch may take, in 2^30 bytes, so that some hundred steps fit into a CPU's minutes.

        Forward and back, one of these took 2 to 3 s of a core with AMX in bfloat16 (UNet 3+ in training).
        """
        return float("inf") if self.gpu or self.minutes is None else max(self.minutes, _LEAST_MINUTES) / 16

    @property
    def step_gmac(self) -> float:
        """Up to which small patches make one step forward, in 10^9: fewer leave a CPU waiting between operations."""
        return float("inf") if self.gpu else 4.0

    def excess(self, cost: StepCost, batch_size: int) -> float:
        """What a step takes of memory or work, over what is there: 1 or less fits."""
        free = self.memory_gb * USABLE * 2**30 - cost.weight_bytes
        memory = batch_size * cost.patch_bytes / free if free > 0 else float("inf")
        return max(memory, cost.macs / (1e9 * self.gmac), cost.patch_bytes / (2**30 * self.patch_gb))

    def decision(self, *, asked: bool) -> Decision:
        """This as a decision; `asked` says whether the memory was given."""
        kind = "a GPU" if self.gpu else "a CPU"
        reason = (
            "as asked for." if asked else f"{MEMORY_GB:g} GB are taken where nothing is said: give --memory for more."
        )
        if not self.gpu:
            reason += " On a CPU widths are halved; plan with --device cuda for a machine with a GPU."
        return Decision("machine", f"{kind} with {self.memory_gb:g} GB", reason)
