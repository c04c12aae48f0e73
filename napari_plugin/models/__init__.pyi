from .compare_model import NUMBER as NUMBER
from .compare_model import CompareModel as CompareModel
from .compare_model import CompareOrder as CompareOrder
from .results_model import CLASS as CLASS
from .results_model import LABEL as LABEL
from .results_model import SHOWN as SHOWN
from .results_model import ResultsModel as ResultsModel
from .results_model import ResultsOrder as ResultsOrder
