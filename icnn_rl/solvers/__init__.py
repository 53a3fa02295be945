"""Solvers: minimize(f, over) → Solution; a solver is an object, one file a family."""

from importlib import import_module
from typing import TYPE_CHECKING

from icnn_rl.solvers.minimize import (
    SOLVERS,
    MinimizeOptions,
    minimize,
    minimize_modes,
    solved_on_device,
)
from icnn_rl.solvers.problem import NonFiniteError, Problem, Solver
from icnn_rl.solvers.solution import Solution

if TYPE_CHECKING:
    from icnn_rl.solvers.bundle import Bundle, Kelley, Level
    from icnn_rl.solvers.bundle_entropy import BundleEntropy
    from icnn_rl.solvers.gradient import AcceleratedGradient, ProjectedGradient
    from icnn_rl.solvers.lp import LinearProgram
    from icnn_rl.solvers.newton import Newton
    from icnn_rl.solvers.newton_on_device import NewtonOnDevice

__all__ = [
    "SOLVERS",
    "AcceleratedGradient",
    "Bundle",
    "BundleEntropy",
    "Kelley",
    "Level",
    "LinearProgram",
    "MinimizeOptions",
    "Newton",
    "NewtonOnDevice",
    "NonFiniteError",
    "Problem",
    "ProjectedGradient",
    "Solution",
    "Solver",
    "minimize",
    "minimize_modes",
    "solved_on_device",
]


def __getattr__(name: str) -> type[Solver]:
    """The class of a solver, loaded when it is first asked for."""
    for place in SOLVERS.values():
        module, _, known = place.partition(":")
        if known == name:
            found: type[Solver] = getattr(import_module(f"icnn_rl.solvers.{module}"), name)
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
