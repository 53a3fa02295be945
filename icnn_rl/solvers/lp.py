"""Linear programs through HiGHS: the exact oracle."""

from __future__ import annotations

from dataclasses import dataclass

import highspy
import numpy as np
import scipy.sparse as sp

from icnn_rl.solvers.linear_programs import Answer, Optimum, Program, solve_each
from icnn_rl.solvers.problem import Problem
from icnn_rl.solvers.solution import Solution


@dataclass(frozen=True)
class LinearProgram:
    """Minimise a piecewise-linear function exactly by HiGHS, see ``solve_each``.

    Source: Huangfu & Hall, "Parallelizing the dual revised simplex method", Mathematical
    Programming Computation 10, 2018.
    """

    linear = True

    def solve(self, problem: Problem) -> Solution:
        """Solve a problem.

        Raises:
            TypeError: f is not piecewise linear.
        """
        return solve_each(problem, "lp", _solve_one)


def _solve_one(program: Program) -> Answer:
    rows = sp.vstack([program.A, program.E], format="csr")
    model = highspy.HighsLp()
    model.num_row_, model.num_col_ = rows.shape
    model.col_cost_ = program.c
    model.col_lower_ = program.lower
    model.col_upper_ = program.upper
    model.row_lower_ = np.concatenate([np.full(len(program.b), -highspy.kHighsInf), program.d])
    model.row_upper_ = np.concatenate([program.b, program.d])
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    model.a_matrix_.start_ = rows.indptr
    model.a_matrix_.index_ = rows.indices
    model.a_matrix_.value_ = rows.data
    solver = highspy.Highs()
    solver.silent()
    solver.passModel(model)
    solver.run()
    match solver.getModelStatus():
        case highspy.HighsModelStatus.kOptimal:
            solution = solver.getSolution()
            mu, nu = np.split(-np.array(solution.row_dual), [len(program.b)])
            return Optimum(np.array(solution.col_value), mu, nu)
        case highspy.HighsModelStatus.kUnbounded | highspy.HighsModelStatus.kUnboundedOrInfeasible:
            return "unbounded"
        case _:
            return "failed"
