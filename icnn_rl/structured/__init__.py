"""Structured prediction: learning energies that are minimised over a set."""

from icnn_rl.structured.classifier import ICNNClassifier
from icnn_rl.structured.completion import ImageCompletion
from icnn_rl.structured.exemplars import ExemplarLoss
from icnn_rl.structured.imputer import ICNNImputer
from icnn_rl.structured.losses import (
    ArgMinError,
    FenchelYoung,
    Hamming,
    LossValue,
    MaxMargin,
    SquaredError,
)
from icnn_rl.structured.model import StructuredModel
from icnn_rl.structured.multi_label import ICNNMultiLabelClassifier
from icnn_rl.structured.regressor import ICNNRegressor
from icnn_rl.structured.training import Trainer, TrainingOptions

__all__ = [
    "ArgMinError",
    "ExemplarLoss",
    "FenchelYoung",
    "Hamming",
    "ICNNClassifier",
    "ICNNImputer",
    "ICNNMultiLabelClassifier",
    "ICNNRegressor",
    "ImageCompletion",
    "LossValue",
    "MaxMargin",
    "SquaredError",
    "StructuredModel",
    "Trainer",
    "TrainingOptions",
]
