"""Batches of convex functions of y, and the operations that keep convexity."""

from icnn_rl.functions.convex_function import (
    Affine,
    ConvexFunction,
    Max,
    Mean,
    Modes,
    Restriction,
    Sum,
    common_shape,
    take_rows,
)
from icnn_rl.functions.linear_program import AffineMap, Array, LinearProgram, to_array
from icnn_rl.functions.terms import (
    Linear,
    NegativeEntropy,
    NegativeShannonEntropy,
    Quadratic,
    linear,
    negative_entropy,
    negative_shannon_entropy,
    quadratic,
    without_entropy,
    without_quadratic,
)

__all__ = [
    "Affine",
    "AffineMap",
    "Array",
    "ConvexFunction",
    "Linear",
    "LinearProgram",
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
    "quadratic",
    "take_rows",
    "to_array",
    "without_entropy",
    "without_quadratic",
]
