"""Where y may live: closed convex sets, the same for every sample or one for each."""

from icnn_rl.sets.box import Box
from icnn_rl.sets.convex_set import Constraint, ConvexSet, Intersection
from icnn_rl.sets.euclidean import Euclidean
from icnn_rl.sets.polytope import Polytope
from icnn_rl.sets.simplex import Simplex, Simplices

__all__ = [
    "Box",
    "Constraint",
    "ConvexSet",
    "Euclidean",
    "Intersection",
    "Polytope",
    "Simplex",
    "Simplices",
]
