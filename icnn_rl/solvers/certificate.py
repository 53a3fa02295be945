"""The best point, the bound and an average tangent of each sample, for first-order solvers."""

from __future__ import annotations

import numpy as np

from icnn_rl.kernels import ROUNDING
from icnn_rl.kernels.polyhedron import TOLERANCE
from icnn_rl.solvers.problem import Array, Index, Mask, Problem, to_array
from icnn_rl.solvers.solution import Solution


class Certificate:
    """The best value of each sample, and a lower bound from its tangents.

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
        self._polyhedron = problem.polyhedron
        self._inner = self._polyhedron.inner(problem.flat(problem.center, n))
        self.best, self.bound = np.full(size, np.inf), np.full(size, -np.inf)
        self.best_y = to_array(problem.start).reshape(size, n).copy()
        self.evaluations = np.zeros(size, np.int64)
        self.noise = np.zeros(size)
        self.weight, self._offset, self.slope = np.zeros(size), np.zeros(size), np.zeros((size, n))

    @property
    def gap(self) -> Array:
        """best - bound, shape ``(size,)``."""
        gap: Array = self.best - self.bound
        return gap

    @property
    def done(self) -> Mask:
        """Which samples are within the tolerance, or within what rounding hides."""
        done: Mask = self.gap <= np.maximum(self.problem.tol, 2 * self.noise)
        return done

    def observe(self, active: Index, y: Array, value: Array, gradient: Array) -> Array:
        """Record an evaluation; returns the offsets a_j of its tangents, rounded downward."""
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
        violation = over.violation(u, active)
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
            some = rows[curved]
            least[curved] = self._polyhedron.take(some).minimize_quadratic(
                slope[curved], self.gamma[some], self._inner[some]
            )
        self.bound[rows] = np.maximum(self.bound[rows], offset + least)

    def solution(self) -> Solution:
        """The best points with their certificates."""
        return self.problem.solution(self.best_y, self.best, self.bound, self.evaluations)
