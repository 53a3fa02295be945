"""The exact oracle: a piecewise-linear function as one linear program a sample, by HiGHS."""

from __future__ import annotations

import highspy
import numpy as np

from icnn_rl.linear_program import LinearProgram
from icnn_rl.sets import Box
from icnn_rl.solvers.problem import Array, Problem, to_array
from icnn_rl.solvers.solution import Solution

TOLERANCE = 1e-7  # to which HiGHS satisfies constraints and optimality


def solve(problem: Problem) -> Solution:
    """Minimise a piecewise-linear function exactly, one sample after the other.

    Each hidden unit of a network becomes one variable z ≥ t, z ≥ leak · t; as f is non-decreasing
    in z, the minimum makes one of them tight. The lower bound is HiGHS' objective less its
    feasibility tolerance.

    Raises:
        TypeError: f is not piecewise linear.

    Source: Amos, Xu & Kolter, "Input Convex Neural Networks", ICML 2017, appendix A.
    """
    if not problem.f.piecewise_linear:
        raise TypeError("solver: 'lp' needs a piecewise-linear function; use 'newton' or 'bundle'")
    if not isinstance(problem.over, Box):
        raise TypeError(f"solver: 'lp' needs a box, got {problem.over}; use 'bundle'")
    size, n = problem.size, problem.dim
    lower, upper = (problem.flat(b, n) for b in problem.over.bounds(problem.start))
    y = to_array(problem.start).reshape(size, n)
    bound = np.full(size, -np.inf)
    shape = problem.batch_shape
    for i in range(size):
        index = tuple(int(k) for k in np.unravel_index(i, shape)) if shape else ()
        y[i], bound[i] = _solve_one(problem.f.to_lp(index), lower[i], upper[i])
    y = np.clip(y, lower, upper)
    points = problem.tensor(y)
    value = to_array(problem.f.value(points).reshape(size))
    return problem.solution(y, value, bound, np.ones(size, np.int64))


def _solve_one(lp: LinearProgram, lower: Array, upper: Array) -> tuple[Array, float]:
    """The minimiser over the box, and a lower bound."""
    free = len(lp.c) - lp.dim
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = len(lp.c), len(lp.b)
    model.col_cost_ = lp.c
    model.col_lower_ = np.concatenate([lower, np.full(free, -highspy.kHighsInf)])
    model.col_upper_ = np.concatenate([upper, np.full(free, highspy.kHighsInf)])
    model.row_lower_ = np.full(len(lp.b), -highspy.kHighsInf)
    model.row_upper_ = lp.b
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    model.a_matrix_.start_ = lp.A.indptr
    model.a_matrix_.index_ = lp.A.indices
    model.a_matrix_.value_ = lp.A.data
    solver = highspy.Highs()
    solver.silent()
    solver.passModel(model)
    solver.run()
    status = solver.getModelStatus()
    if status != highspy.HighsModelStatus.kOptimal:
        return (lower + upper) / 2, -np.inf
    y = np.array(solver.getSolution().col_value[: lp.dim])
    optimum = float(solver.getInfo().objective_function_value) + lp.constant
    return y, optimum - TOLERANCE * max(1.0, abs(optimum))
