"""Input-convex neural networks: inference as certified convex optimisation."""

from icnn_rl.adjoints import ArgMin, argmin, minimum, unrolled
from icnn_rl.functions import (
    ConvexFunction,
    Modes,
    linear,
    negative_entropy,
    negative_shannon_entropy,
    quadratic,
)
from icnn_rl.networks import (
    FICNN,
    PICNN,
    AveragePool,
    Conv,
    ConvFICNN,
    ConvPICNN,
    Dense,
    Encoder,
    MaxPool,
    QuadraticNetwork,
)
from icnn_rl.sampling import sample
from icnn_rl.sets import Ball, Box, ConvexSet, Euclidean, L1Ball, Polytope, Simplex, Simplices
from icnn_rl.solvers import Solution, minimize, minimize_modes

__version__ = "0.1.0"

__all__ = [
    "FICNN",
    "PICNN",
    "ArgMin",
    "AveragePool",
    "Ball",
    "Box",
    "Conv",
    "ConvFICNN",
    "ConvPICNN",
    "ConvexFunction",
    "ConvexSet",
    "Dense",
    "Encoder",
    "Euclidean",
    "L1Ball",
    "MaxPool",
    "Modes",
    "Polytope",
    "QuadraticNetwork",
    "Simplex",
    "Simplices",
    "Solution",
    "argmin",
    "linear",
    "minimize",
    "minimize_modes",
    "minimum",
    "negative_entropy",
    "negative_shannon_entropy",
    "quadratic",
    "sample",
    "unrolled",
]
