from .bundles import find_bundle as find_bundle
from .bundles import open_bundle as open_bundle
from .cohort import predict_cohort as predict_cohort
from .data import find_studies as find_studies
from .data import write_phantoms as write_phantoms
from .evaluation import evaluate_folders as evaluate_folders
from .inferers import WindowInferer as WindowInferer
from .integrations import predict_on_cluster as predict_on_cluster
from .losses import GuidedLoss as GuidedLoss
from .losses import HybridLoss as HybridLoss
from .losses import LabelledVoxelsLoss as LabelledVoxelsLoss
from .losses import WeightedHeadsLoss as WeightedHeadsLoss
from .nets import PlainUNet as PlainUNet
from .nets import SkipFCN as SkipFCN
from .nets import UNet3Plus as UNet3Plus
from .nets import UNetPlusPlus as UNetPlusPlus
from .nets import create_network as create_network
from .nets import list_networks as list_networks
from .nets import profile_network as profile_network
from .prediction import predict_volume as predict_volume
from .reporting import save_diagram as save_diagram
from .reporting import save_overlay as save_overlay
from .reporting import trace_graph as trace_graph
from .training import train as train

__version__: str
