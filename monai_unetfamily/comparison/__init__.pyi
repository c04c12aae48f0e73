from .study import compare as compare
