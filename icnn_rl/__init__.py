"""Input-convex neural networks: inference as certified convex optimisation."""

from icnn_rl.functions import ConvexFunction
from icnn_rl.networks import FICNN, PICNN
from icnn_rl.sets import Box, ConvexSet, Euclidean, Polytope, Simplex, Simplices
from icnn_rl.solvers import Solution, minimize
from icnn_rl.terms import linear, negative_entropy, quadratic

__version__ = "0.1.0"

__all__ = [
    "FICNN",
    "PICNN",
    "Box",
    "ConvexFunction",
    "ConvexSet",
    "Euclidean",
    "Polytope",
    "Simplex",
    "Simplices",
    "Solution",
    "linear",
    "minimize",
    "negative_entropy",
    "quadratic",
]
