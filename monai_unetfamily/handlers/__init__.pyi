from .checkpoint import CHECKPOINT as CHECKPOINT
from .checkpoint import AtomicCheckpoint as AtomicCheckpoint
from .checkpoint import BestWeights as BestWeights
from .checkpoint import save_atomically as save_atomically
from .checkpoint import saved_epoch as saved_epoch
from .seeded_epochs import SeededEpochs as SeededEpochs
