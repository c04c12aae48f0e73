from .config_review import PREDICTION as PREDICTION
from .config_review import Finding as Finding
from .config_review import UntrustedBundleError as UntrustedBundleError
from .config_review import restricted_parser as restricted_parser
from .config_review import review as review
from .config_review import review_training as review_training
from .config_review import reviewed_parser as reviewed_parser
from .config_review import training_parser as training_parser
