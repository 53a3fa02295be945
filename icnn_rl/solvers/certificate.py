"""What first-order solvers keep of each sample: the best point, the bound, an average tangent."""

from __future__ import annotations

import numpy as np

from icnn_rl.kernels.interior_point import minimize_model, separable_minimum
from icnn_rl.kernels.newton_equations import compiled
from icnn_rl.kernels.polyhedron import TOLERANCE, Polyhedron
from icnn_rl.solvers.problem import ROUNDING, Array, Index, Mask, Problem, to_array
from icnn_rl.solvers.solution import Solution

ACCURACY = 1e-12  # of the minimum of a tangent over a polyhedron, relative to its slope


class Certificate:
    """The best value of each sample, and the bound that its tangents prove.

        f(y) ≥ f_j + g_jᵀ(y - y_j) + γ/2 ‖y - y_j‖² = a_j + h_jᵀy + γ/2 ‖y‖²

    Any convex combination of (a_j, h_j) is below f as well. A solver adds its tangents to a running
    one, with the weights that its analysis gives; its minimum over the set is a bound.

    Attributes:
        best: the least value so far, shape ``(size,)``, and ``best_y`` where it was taken.
        bound: the highest bound so far, shape ``(size,)``.
        noise: how far rounding may have moved a tangent at least, shape ``(size,)``.
        weight: Σ_j w_j since the last ``restart``, shape ``(size,)``.
        slope: Σ_j w_j h_j, shape ``(size, n)``.
    """

    def __init__(self, problem: Problem) -> None:
        size, n = problem.size, problem.dim
        self.problem = problem
        self.gamma = problem.flat(problem.f.strong_convexity)
        self._polyhedron = Polyhedron.of(problem.over, problem.start)
        self._inner = self._polyhedron.inner(problem.flat(problem.center, n))
        self.best, self.bound = np.full(size, np.inf), np.full(size, -np.inf)
        self.best_y = to_array(problem.start).reshape(size, n).copy()
        self.evaluations = np.zeros(size, np.int64)
        self.noise = np.zeros(size)
        self.weight, self._offset, self.slope = np.zeros(size), np.zeros(size), np.zeros((size, n))

    @property
    def gap(self) -> Array:
        """What is left to prove, shape ``(size,)``."""
        gap: Array = self.best - self.bound
        return gap

    @property
    def done(self) -> Mask:
        """Which samples are within the tolerance, or within what rounding hides."""
        done: Mask = self.gap <= np.maximum(self.problem.tol, 2 * self.noise)
        return done

    def observe(self, active: Index, y: Array, value: Array, gradient: Array) -> Array:
        """Take note of an evaluation; returns the offsets a_j of its tangents, rounded downward."""
        self.evaluations[active] += 1
        first = self.evaluations[active] == 1  # which is feasible as given
        better = (value < self.best[active]) & (first | self._feasible(active, y))
        self.best[active[better]] = value[better]
        self.best_y[active[better]] = y[better]
        terms = np.abs(gradient) * (np.abs(y) + self._polyhedron.width[active])
        noise = ROUNDING * self.problem.epsilon * (np.abs(value) + terms.sum(1))
        self.noise[active] = np.where(first, noise, np.minimum(noise, self.noise[active]))
        gamma = self.gamma[active, None]
        offset: Array = value + ((gamma / 2 * y - gradient) * y).sum(1) - noise
        self.prove(active, offset, gradient - gamma * y)
        return offset

    def _feasible(self, active: Index, y: Array) -> Mask:
        """Which points meet the inequalities and equations, as far as rounding lets them."""
        over = self._polyhedron
        u = (y - over.origin[active]) / np.maximum(over.width[active], 1e-300)
        above = np.einsum("srn,sn->sr", over.A_ub[active], u) - over.b_ub[active]
        off = np.einsum("sqn,sn->sq", over.A_eq[active], u) - over.b_eq[active]
        violation = np.concatenate([above, abs(off)], axis=1).max(1, initial=0.0)
        feasible: Mask = violation <= TOLERANCE + ROUNDING * self.problem.epsilon
        return feasible

    def average(self, active: Index, weight: Array, offset: Array, slope: Array) -> None:
        """Add tangents to the running combinations, each with a weight ≥ 0, and prove a bound."""
        self.weight[active] += weight
        self._offset[active] += weight * offset
        self.slope[active] += weight[:, None] * slope
        rows = active[self.weight[active] > 0]
        total = self.weight[rows]
        self.prove(rows, self._offset[rows] / total, self.slope[rows] / total[:, None])

    def restart(self, rows: Index) -> None:
        """Forget the running combinations."""
        self.weight[rows] = self._offset[rows] = self.slope[rows] = 0.0

    def prove(self, rows: Index, offset: Array, slope: Array) -> None:
        """Raise the bound to the minimum of a + hᵀy + γ/2 ‖y‖² over the set."""
        curved = self.gamma[rows] > 0
        least = np.empty(len(rows))
        if not curved.all():
            c = np.zeros_like(self.slope)
            c[rows] = slope
            least = -self.problem.support(-c)[rows]
        if curved.any():
            over, inner, gamma = self._polyhedron, self._inner, self.gamma
            _curved_minima(
                np.flatnonzero(curved), rows, slope, gamma, over.A_ub, over.b_ub, over.A_eq, over.b_eq,
                over.origin, over.width, over.finite, inner, least,
            )  # fmt: skip
        self.bound[rows] = np.maximum(self.bound[rows], offset + least)

    def solution(self) -> Solution:
        """The best points with their certificates."""
        return self.problem.solution(self.best_y, self.best, self.bound, self.evaluations)


@compiled
def _curved_minima(  # type: ignore[no-untyped-def]
    chosen, rows, slope, gamma, A, b, E, e, origin, width, finite, inner, least
):
    """min hᵀy + γ/2 ‖y‖² over a polyhedron, or less, for γ > 0."""
    r, n = A.shape[1:]
    h, a, p = np.empty((r + 1, n)), np.zeros(r + 1), np.empty(n)
    for k in chosen:
        i = rows[k]
        fixed, scale = 0.0, 1e-300
        for j in range(n):
            g = slope[k, j] + gamma[i] * origin[i, j]
            fixed += (slope[k, j] + g) / 2 * origin[i, j]
            h[r, j] = g * width[i, j]
            p[j] = gamma[i] * width[i, j] ** 2
            scale += abs(h[r, j])
        if r + E.shape[1] == 0:
            least[k] = fixed + separable_minimum(h[r], p, finite[i])
            continue
        h[:r], a[:r] = A[i], -b[i]
        scale += p.max()
        h[r] /= scale
        least[k] = fixed + scale * minimize_model(
            h, a, r, E[i], e[i], np.empty((0, 0)), p / scale, finite[i], inner[i].copy(), ACCURACY,
            np.inf,
        )  # fmt: skip
