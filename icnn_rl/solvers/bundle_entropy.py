"""The bundle entropy method: tangents of g plus the entropy itself, for f = g + entropy."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from icnn_rl.functions import NegativeEntropy, without_entropy
from icnn_rl.kernels import ROUNDING
from icnn_rl.kernels.bundle_entropy import Masters, solve_masters
from icnn_rl.solvers.oracle import Oracle
from icnn_rl.solvers.problem import Problem, to_array
from icnn_rl.solvers.solution import Solution


@dataclass(frozen=True)
class BundleEntropy:
    """Minimise f = g + α Σᵢ h(yᵢ), h the negative entropy, over a box.

    The model keeps the entropy as it is and replaces g by the maximum of its tangents. Its
    minimiser is unique, has a closed form in the multipliers of the tangents, and is the next
    point.

    Source: Amos, Xu & Kolter, "Input Convex Neural Networks", ICML 2017, section 4.2.
    """

    def solve(self, problem: Problem) -> Solution:
        """Solve a problem.

        Raises:
            TypeError: f has no entropy term, or the set has constraints that couple coordinates.
        """
        g, alpha = without_entropy(problem.f)
        if g is None or alpha <= 0:
            raise TypeError(
                "solver: 'bundle_entropy' needs f = g + negative_entropy(alpha), alpha > 0; "
                "use 'bundle'"
            )
        if problem.canonical.has_rows:
            raise TypeError(
                f"solver: 'bundle_entropy' needs a box, got {problem.over}; use 'bundle'"
            )
        size, n, entropy = problem.size, problem.dim, NegativeEntropy(alpha)
        oracle = Oracle(replace(problem, f=g))
        lower, upper = problem.bounds
        reach = np.minimum(upper - lower, 2.0)
        y, active = to_array(problem.start).reshape(size, n), np.arange(size)
        best_y, best, bound = y.copy(), np.full(size, np.inf), np.full(size, -np.inf)
        count = np.zeros(size, np.int64)
        h, a, weights = np.empty((size, 16, n)), np.empty((size, 16)), np.empty((size, 16))
        for evaluation in range(problem.max_evaluations):
            if evaluation == a.shape[1]:
                h, a, weights = (
                    np.concatenate([t, np.empty_like(t)], axis=1) for t in (h, a, weights)
                )
            _, y, value, gradient = oracle.evaluate(y, active)
            count[active] += 1
            terms = abs(gradient) * (abs(y) + reach[active])
            noise = ROUNDING * problem.epsilon * (abs(value) + terms.sum(1))
            h[active, evaluation] = gradient
            a[active, evaluation] = value - (gradient * y).sum(1) - noise
            total = value + entropy.value(torch.from_numpy(y)).numpy()
            better = total < best[active]
            best[active[better]], best_y[active[better]] = total[better], y[better]
            weights[active, :evaluation] /= 2
            weights[active, evaluation] = 0.5 if evaluation > 0 else 1.0
            gap = best - bound
            if evaluation == 0:
                gap = np.maximum(abs(best), max(alpha, 1e-300))
            masters = Masters(h, a, weights, lower, upper)
            y, proved = solve_masters(
                masters, evaluation + 1, active, alpha, best, gap, problem.tol
            )
            bound[active] = np.fmax(bound[active], proved)
            # A sample beyond float64 stops with the gap that it has.
            going = ~np.isnan(proved)
            going &= best[active] - bound[active] > np.maximum(problem.tol, 2 * noise)
            active, y = active[going], y[going]
            if len(active) == 0:
                break
        return problem.solution(best_y, best, bound, count)
