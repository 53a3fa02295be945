"""Newton's method within a set, for smooth functions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from icnn_rl.kernels import RIDGE, ROUNDING
from icnn_rl.kernels.interior_point import NO_MATRIX, Models, minimize_models
from icnn_rl.kernels.newton import State, judge, step_in_box
from icnn_rl.kernels.polyhedron import Polyhedron
from icnn_rl.kernels.tangents import Evaluations, Tangents
from icnn_rl.solvers.oracle import Oracle
from icnn_rl.solvers.problem import Array, Problem, to_array
from icnn_rl.solvers.solution import Solution


@dataclass(frozen=True)
class Newton:
    """Minimise a smooth convex function by Newton steps within the set.

    Each step evaluates f and ∇f, and the tangent gives a bound; where that does not yet prove the
    point good enough, ∇²f follows, and the minimiser of the quadratic model over the set is the
    next point: on a box by projected Newton steps, elsewhere by an interior-point method. A step
    that brings too little is halved. Near the optimum the gap closes as fast as the method
    converges.

    Source: Bertsekas, "Projected Newton methods for optimization problems with simple
    constraints", SIAM Journal on Control and Optimization 20, 1982.
    """

    def solve(self, problem: Problem) -> Solution:
        """Solve a problem.

        Raises:
            TypeError: f is not smooth.
        """
        if not problem.f.smooth:
            raise TypeError("solver: 'newton' needs a smooth function; use 'bundle'")
        size, rounding = problem.size, ROUNDING * problem.epsilon
        oracle, gamma = Oracle(problem, hessians=True), problem.flat(problem.f.strong_convexity)
        over = problem.polyhedron
        polyhedral = over.b_ub.size + over.b_eq.size > 0
        interior = over.inner(problem.flat(problem.center, problem.dim)) if polyhedral else None

        y, active = to_array(problem.start).reshape(size, problem.dim), np.arange(size)
        state = State.at(y)
        for evaluation in range(1, problem.max_evaluations + 1):
            found = oracle.evaluate(y, active)
            tangents, accepted = judge(found, over, gamma, rounding, state)
            if interior is not None:
                proved = _minima(tangents, found, over, interior)
                state.bound[active] = np.maximum(state.bound[active], proved)
            gap = state.best[active] - state.bound[active]
            going = gap > np.maximum(problem.tol, 2 * tangents.noise)
            if evaluation == problem.max_evaluations or not going.any():
                break
            rows = np.flatnonzero(going & accepted)
            if len(rows) > 0:
                hessian = oracle.hessian(rows)
                if interior is None:
                    step_in_box(found, rows, hessian, over, rounding, state)
                else:
                    new = found.take(rows)
                    step = _step(new, hessian, over, rounding, interior, gap[rows])
                    state.step[new.active], state.decrease[new.active] = step
                    state.share[new.active] = 1.0
            active = active[going]
            y = state.base[active] + state.share[active, None] * state.step[active]
        return problem.solution(state.base, state.best, state.bound, state.evaluations)


def _minima(tangents: Tangents, found: Evaluations, over: Polyhedron, interior: Array) -> Array:
    """Minima of tangents over polyhedra, or less."""
    i = found.active
    models = Models(
        h=np.concatenate([over.A_ub[i], tangents.c[:, None]], 1),
        a=np.concatenate([-over.b_ub[i], np.zeros((len(i), 1))], 1),
        E=over.A_eq[i],
        e=over.b_eq[i],
        P=NO_MATRIX,
        p=tangents.p,
        finite=over.finite[i],
    )
    # Where there are no bounds, the interior point may be far away.
    start = np.where(models.finite, interior[i], found.y - over.origin[i])
    scale = abs(tangents.c).sum(1) + tangents.p.sum(1) + 1e-300
    rows = over.b_ub.shape[1]
    return tangents.offset + minimize_models(models, start, rows=rows, scale=scale, accuracy=1e-12)


def _step(
    found: Evaluations,
    hessian: Array,
    over: Polyhedron,
    rounding: float,
    interior: Array,
    gap: Array,
) -> tuple[Array, Array]:
    """Steps to the minimisers of quadratic models over polyhedra, and how far these fall.

    The arguments are those of ``step_in_box``; ``gap`` is what is left to prove.
    """
    i, n = found.active, found.y.shape[1]
    width = over.width[i]
    u = (found.y - over.origin[i]) / np.maximum(width, 1e-300)
    P, g = hessian * width[:, :, None] * width[:, None], found.gradient * width
    ridge = np.trace(P, axis1=1, axis2=2)[:, None] * max(RIDGE / n, rounding) + 1e-12
    slope = g - np.einsum("sij,sj->si", P, u) - ridge * u  # of the quadratic at u = 0
    models = Models(
        h=np.concatenate([over.A_ub[i], slope[:, None]], 1),
        a=np.concatenate([-over.b_ub[i], np.zeros((len(i), 1))], 1),
        E=over.A_eq[i],
        e=over.b_eq[i],
        P=P,
        p=ridge.repeat(n, 1),
        finite=over.finite[i],
    )
    trial = np.where(models.finite, 0.9 * u + 0.1 * interior[i], u)
    minimize_models(models, trial, rows=over.b_ub.shape[1], scale=gap, accuracy=1e-8)
    d = trial - u
    decrease = -(g * d + d * (np.einsum("sij,sj->si", P, d) + ridge * d) / 2).sum(1)
    return d * width, decrease
