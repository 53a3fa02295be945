"""Linear programs, one a sample, through HiGHS or another solver, with proofs of their answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.optimize import linprog

from icnn_rl.functions.linear_program import LinearProgram as Epigraph
from icnn_rl.kernels import ROUNDING
from icnn_rl.solvers.oracle import Oracle
from icnn_rl.solvers.problem import Array, Problem
from icnn_rl.solvers.solution import Solution

HIGHS_TOLERANCE = 1e-7  # relative, of an optimal value without a bound of ours
FEASIBILITY_TOLERANCE = 1e-12  # relative
OPTIMAL, UNBOUNDED = 0, 3  # of scipy's status


@dataclass(frozen=True)
class Program:
    """min { cᵀv : A v ≤ b, E v = d, lower ≤ v ≤ upper }; bounds may be infinite."""

    c: Array
    A: sp.csr_array
    b: Array
    E: sp.csr_array
    d: Array
    lower: Array
    upper: Array

    def with_bounds_as_rows(self) -> tuple[sp.csr_array, Array]:
        """A and b, with a further row for every finite bound."""
        above, below = np.isfinite(self.upper), np.isfinite(self.lower)
        axes = sp.eye_array(len(self.c), format="csr")
        A = sp.vstack([self.A, axes[above], -axes[below]], format="csr")
        return A, np.concatenate([self.b, self.upper[above], -self.lower[below]])


@dataclass(frozen=True)
class Optimum:
    """The answer to a program.

    Attributes:
        v: the minimiser.
        mu: multipliers ≥ 0 of A v ≤ b, and
        nu: those of E v = d, with c + Aᵀμ + Eᵀν = 0 but for v at its bounds.
    """

    v: Array
    mu: Array
    nu: Array


Answer = Optimum | Literal["unbounded", "failed"]


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
        return solve_each(problem, "lp", _solve_by_highs)


def solve_each(problem: Problem, name: str, solve_one: Callable[[Program], Answer]) -> Solution:
    """Minimise a piecewise-linear function exactly, one sample after the other.

    Each hidden unit of a network becomes one variable z ≥ t, z ≥ leak · t; each unit of a maximum
    pool one variable z ≥ every entry of its window. As f is non-decreasing in z, the minimum makes
    one of these tight.

    The lower bound does not rest on the solver. Its multipliers only choose, for every unit, a
    slope between those of its pieces; with all slopes chosen the network is an affine function
    a + gᵀy below f (``LinearProgram.tangent``), and for the set, with any μ ≥ 0 and any ν,

        gᵀy ≥ rᵀy - μᵀb - νᵀd ≥ Σᵢ min(rᵢ lowerᵢ, rᵢ upperᵢ) - μᵀb - νᵀd,      r = g + Aᵀμ + Eᵀν.

    Only where the set is unbounded, so that r would have to vanish exactly, is the bound the
    solver's own optimal value less a relative 1e-7. Where the solver fails, the multipliers are
    zero, and the bound is -∞ if the set is unbounded. Empty sets do not come this far.

    Args:
        problem: the problem; its f is piecewise linear.
        name: the name of the solver, for error messages.
        solve_one: the solver.

    Raises:
        TypeError: f is not piecewise linear.

    Source: Amos, Xu & Kolter, "Input Convex Neural Networks", ICML 2017, appendix A.
    """
    if not problem.f.piecewise_linear:
        raise TypeError(
            f"solver: {name!r} needs a piecewise-linear function; use 'newton' or 'bundle'"
        )
    size, n, shape = problem.size, problem.dim, problem.batch_shape
    form, (lower, upper) = problem.canonical, problem.bounds
    (A, b), (E, d) = (
        (problem.flat(matrix, *matrix.shape[-2:]), problem.flat(right, right.shape[-1]))
        for matrix, right in ((form.A_ub, form.b_ub), (form.A_eq, form.b_eq))
    )
    y, bound = problem.flat(problem.center, n).copy(), np.full(size, -np.inf)
    unbounded = np.zeros(size, np.bool_)
    for i in range(size):
        index = tuple(int(k) for k in np.unravel_index(i, shape)) if shape else ()
        lp = problem.f.to_lp(index)
        program = _program(lp, A[i], b[i], E[i], d[i], lower[i], upper[i])
        if not all(np.isfinite(t).all() for t in (program.c, program.A.data, program.b)):
            continue
        answer = _scaled(program, solve_one)
        bounded = np.isfinite(upper[i] - lower[i]).all()
        unbounded[i] = answer == "unbounded" and not bounded
        if isinstance(answer, Optimum):
            y[i] = np.clip(answer.v[:n], lower[i], upper[i])
        elif bounded:
            answer = Optimum(*map(np.zeros_like, (program.c, program.b, program.d)))
        if isinstance(answer, Optimum):
            bound[i] = _bound(lp, program, answer)
    # What is feasible is left alone: a projection may be the less accurate of the two.
    excess = np.concatenate([_excess(A, b, y), abs(_excess(E, d, y))], axis=1)
    outside = np.flatnonzero((excess > FEASIBILITY_TOLERANCE).any(1))
    if outside.size:
        y[outside] = problem.project(y)[outside]
    _, y, value, _ = Oracle(problem).evaluate(y, np.arange(size))
    return problem.solution(y, value, bound, np.ones(size, np.int64), unbounded=unbounded)


def _scaled(program: Program, solve_one: Callable[[Program], Answer]) -> Answer:
    """The answer to a program with y in units of its bounds and the objective at unit scale.

    Tolerances of solvers are absolute.
    """
    spread = program.upper - program.lower
    unit = np.where(np.isfinite(spread) & (spread > 0), spread, 1.0)
    units = sp.diags_array(unit)
    scale = float(np.abs(program.c * unit).max()) or 1.0
    answer = solve_one(
        Program(
            c=program.c * unit / scale,
            A=(program.A @ units).tocsr(),
            b=program.b,
            E=(program.E @ units).tocsr(),
            d=program.d,
            lower=program.lower / unit,
            upper=program.upper / unit,
        )
    )
    if isinstance(answer, Optimum):
        return Optimum(unit * answer.v, scale * answer.mu, scale * answer.nu)
    return answer


def _excess(matrix: Array, right: Array, y: Array) -> Array:
    """matrix · y - right, relative to the size of its terms."""
    terms = np.einsum("srn,sn->sr", abs(matrix), abs(y)) + abs(right) + 1e-300
    excess: Array = (np.einsum("srn,sn->sr", matrix, y) - right) / terms
    return excess


def _bound(lp: Epigraph, program: Program, answer: Optimum) -> float:
    """A lower bound from multipliers; see ``solve_each``."""
    n, rows = lp.dim, len(lp.b)
    lower, upper = program.lower[:n], program.upper[:n]
    if not np.isfinite(upper - lower).all():
        optimum = float(program.c @ answer.v) + lp.constant
        return optimum - HIGHS_TOLERANCE * max(1.0, abs(optimum))
    a, g, terms = lp.tangent(answer.mu[:rows])
    matrix = sp.vstack([program.A[rows:, :n], program.E[:, :n]])
    multipliers = np.concatenate([np.maximum(answer.mu[rows:], 0.0), answer.nu])
    right = np.concatenate([program.b[rows:], program.d])
    r = g + matrix.T @ multipliers
    least = a - multipliers @ right + np.minimum(r * lower, r * upper).sum()
    terms[:n] += abs(matrix).T @ abs(multipliers)
    terms[n] += abs(multipliers) @ abs(right)
    noise = ROUNDING * np.finfo(np.float64).eps * terms
    return float(least - noise[:n] @ np.maximum(abs(lower), abs(upper)) - noise[n])


def _program(
    lp: Epigraph, A: Array, b: Array, E: Array, d: Array, lower: Array, upper: Array
) -> Program:
    """A function and a set as one program; the function's rows come first."""
    auxiliaries = len(lp.c) - lp.dim
    free = np.full(auxiliaries, np.inf)

    def widened(matrix: npt.NDArray[np.float64]) -> sp.csr_array:
        return sp.hstack([sp.csr_array(matrix), sp.csr_array((len(matrix), auxiliaries))])

    return Program(
        c=lp.c,
        A=sp.vstack([lp.A, widened(A)], format="csr"),
        b=np.concatenate([lp.b, b]),
        E=widened(E).tocsr(),
        d=d,
        lower=np.concatenate([lower, -free]),
        upper=np.concatenate([upper, free]),
    )


def _solve_by_highs(program: Program) -> Answer:
    equations = (program.E, program.d) if len(program.d) else (None, None)
    bounds = np.column_stack([program.lower, program.upper])
    for presolve in (True, False):  # it may say less than the simplex method, or stop it
        found = linprog(
            *(program.c, program.A, program.b, *equations, bounds), options={"presolve": presolve}
        )
        if found.status == OPTIMAL:
            return Optimum(found.x, -found.ineqlin.marginals, -found.eqlin.marginals)
        if found.status == UNBOUNDED:
            return "unbounded"
    return "failed"
