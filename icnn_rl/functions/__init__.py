"""Batches of convex functions of y, and the operations that keep convexity."""

from icnn_rl.functions.convex_function import (
    Affine,
    ConvexFunction,
    Derived,
    Max,
    Mean,
    Restriction,
    Sum,
    common_shape,
    own_index,
    take_rows,
)
from icnn_rl.functions.modes import Modes
from icnn_rl.functions.terms import (
    EDGE,
    STEEP,
    Linear,
    NegativeEntropy,
    NegativeShannonEntropy,
    Quadratic,
    linear,
    negative_entropy,
    negative_shannon_entropy,
    quadratic,
    without_quadratic,
)

__all__ = [
    "EDGE",
    "STEEP",
    "Affine",
    "ConvexFunction",
    "Derived",
    "Linear",
    "Max",
    "Mean",
    "Modes",
    "NegativeEntropy",
    "NegativeShannonEntropy",
    "Quadratic",
    "Restriction",
    "Sum",
    "common_shape",
    "linear",
    "negative_entropy",
    "negative_shannon_entropy",
    "own_index",
    "quadratic",
    "take_rows",
    "without_quadratic",
]
