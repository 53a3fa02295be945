"""Where y may live: closed convex sets, the same for every sample or one for each."""

from icnn_rl.sets.ball import Ball
from icnn_rl.sets.box import Box
from icnn_rl.sets.convex_set import Constraint, ConvexSet
from icnn_rl.sets.euclidean import Euclidean
from icnn_rl.sets.intersection import Intersection
from icnn_rl.sets.l1_ball import L1Ball
from icnn_rl.sets.polytope import Polytope
from icnn_rl.sets.simplex import Simplex, Simplices

__all__ = [
    "Ball",
    "Box",
    "Constraint",
    "ConvexSet",
    "Euclidean",
    "Intersection",
    "L1Ball",
    "Polytope",
    "Simplex",
    "Simplices",
]
