"""Solvers: minimize(f, over) → Solution; one file a method, all behind one call."""

from icnn_rl.solvers.minimize import minimize
from icnn_rl.solvers.modes import minimize_modes
from icnn_rl.solvers.solution import Solution

__all__ = ["Solution", "minimize", "minimize_modes"]
