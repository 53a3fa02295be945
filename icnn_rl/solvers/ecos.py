"""Linear programs through ECOS."""

from __future__ import annotations

import scipy.sparse as sp

from icnn_rl.solvers.linear_programs import Answer, Optimum, Program, solve_each
from icnn_rl.solvers.problem import Problem
from icnn_rl.solvers.solution import Solution

try:
    import ecos
except ImportError as error:
    raise ImportError("solver: 'ecos' needs pip install icnn-rl[solvers]") from error


def solve(problem: Problem) -> Solution:
    """Minimise a piecewise-linear function exactly by ECOS, see ``solve_each``.

    Raises:
        TypeError: f is not piecewise linear.

    Source: Domahidi, Chu & Boyd, "ECOS: an SOCP solver for embedded systems", ECC 2013.
    """
    return solve_each(problem, "ecos", _solve_one)


def _solve_one(program: Program) -> Answer:
    G, h = program.with_bounds_as_rows()
    equations = (sp.csc_matrix(program.E), program.d) if len(program.d) else ()
    try:
        result = ecos.solve(
            program.c, sp.csc_matrix(G), h, {"l": len(h)}, *equations, verbose=False
        )
    except RuntimeError:  # it takes no equation without coefficients
        return "failed"
    match result["info"]["exitFlag"]:
        case 0 | 10:
            mu = result["z"][: len(program.b)]
            return Optimum(result["x"], mu, result["y"])
        case 2:
            return "unbounded"
        case _:
            return "failed"
