"""Linear programs through Clarabel."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from icnn_rl.solvers.linear_programs import Answer, Optimum, Program, solve_each
from icnn_rl.solvers.problem import Problem
from icnn_rl.solvers.solution import Solution

try:
    import clarabel
except ImportError as error:
    raise ImportError("solver: 'clarabel' needs pip install icnn-rl[solvers]") from error


def solve(problem: Problem) -> Solution:
    """Minimise a piecewise-linear function exactly by Clarabel, see ``solve_each``.

    Raises:
        TypeError: f is not piecewise linear.

    Source: Goulart & Chen, "Clarabel: an interior-point solver for conic programs with quadratic
    objectives", arXiv:2405.12762, 2024.
    """
    return solve_each(problem, "clarabel", _solve_one)


def _solve_one(program: Program) -> Answer:
    G, h = program.with_bounds_as_rows()
    equations, size = len(program.d), len(program.c)
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    solver = clarabel.DefaultSolver(
        sp.csc_matrix((size, size)),
        program.c,
        sp.csc_matrix(sp.vstack([program.E, G])),
        np.concatenate([program.d, h]),
        [clarabel.ZeroConeT(equations), clarabel.NonnegativeConeT(len(h))],
        settings,
    )
    result = solver.solve()
    match str(result.status):
        case "Solved" | "AlmostSolved":
            nu, mu = np.split(np.array(result.z), [equations])
            return Optimum(np.array(result.x), mu[: len(program.b)], nu)
        case "DualInfeasible":
            return "unbounded"
        case _:
            return "failed"
