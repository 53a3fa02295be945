"""Adjoints: how minima and minimisers depend on what the problem was made of."""

from icnn_rl.adjoints.argmin import argmin, minimum
from icnn_rl.adjoints.layer import ArgMin
from icnn_rl.adjoints.unrolled import unrolled

__all__ = ["ArgMin", "argmin", "minimum", "unrolled"]
