from .auto3dseg import TEMPLATES as TEMPLATES
from .auto3dseg import InferClass as InferClass
from .auto3dseg import UnetfamilyAlgo as UnetfamilyAlgo
from .ray import predict_on_cluster as predict_on_cluster
from .ray import require_ray as require_ray
