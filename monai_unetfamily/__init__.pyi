from monai_unetfamily.bundles.bundle import open_bundle as open_bundle
from monai_unetfamily.bundles.metadata import find_bundle as find_bundle
from monai_unetfamily.evaluation import evaluate_folders as evaluate_folders
from monai_unetfamily.inference.batch import predict_cohort as predict_cohort
from monai_unetfamily.inference.cluster import predict_on_cluster as predict_on_cluster
from monai_unetfamily.inference.diagram import save_diagram as save_diagram
from monai_unetfamily.inference.inferer import WindowInferer as WindowInferer
from monai_unetfamily.inference.predictor import predict_volume as predict_volume
from monai_unetfamily.inference.report import save_overlay as save_overlay
from monai_unetfamily.losses import GuidedLoss as GuidedLoss
from monai_unetfamily.losses import HybridLoss as HybridLoss
from monai_unetfamily.losses import LabelledVoxelsLoss as LabelledVoxelsLoss
from monai_unetfamily.losses import WeightedHeadsLoss as WeightedHeadsLoss
from monai_unetfamily.nets import PlainUNet as PlainUNet
from monai_unetfamily.nets import SkipFCN as SkipFCN
from monai_unetfamily.nets import UNet3Plus as UNet3Plus
from monai_unetfamily.nets import UNetPlusPlus as UNetPlusPlus
from monai_unetfamily.nets import create_network as create_network
from monai_unetfamily.nets import list_networks as list_networks
from monai_unetfamily.nets.diagram import trace_graph as trace_graph
from monai_unetfamily.nets.profiling import profile_network as profile_network
from monai_unetfamily.training.run import train as train
from monai_unetfamily.volumes.phantom import write_phantoms as write_phantoms
from monai_unetfamily.volumes.studies import find_studies as find_studies

__version__: str
__all__: list[str]
