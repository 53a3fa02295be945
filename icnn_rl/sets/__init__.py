"""Where y may live: closed convex sets, the same for every sample or one for each."""

from icnn_rl.sets.balls import Ball, L1Ball
from icnn_rl.sets.box import Box, Euclidean
from icnn_rl.sets.canonical import CanonicalSet
from icnn_rl.sets.convex_set import ConvexSet, Intersection
from icnn_rl.sets.polytope import Polytope, Simplex, Simplices

__all__ = [
    "Ball",
    "Box",
    "CanonicalSet",
    "ConvexSet",
    "Euclidean",
    "Intersection",
    "L1Ball",
    "Polytope",
    "Simplex",
    "Simplices",
]
