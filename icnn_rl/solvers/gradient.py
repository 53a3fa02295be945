"""Projected gradient steps, for smooth and nonsmooth functions alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from icnn_rl.solvers.certificate import Certificate
from icnn_rl.solvers.oracle import Oracle
from icnn_rl.solvers.problem import Array, Problem, to_array
from icnn_rl.solvers.solution import Solution

MODEL_SLACK = 0.25  # share of the gap
MAX_WEIGHT = 1e100  # of the tangents averaged, beyond which squares overflow


@dataclass(frozen=True)
class ProjectedGradient:
    """Minimise any convex function by projected gradient steps.

        y⁺ = P(y - g/L),    f(y⁺) ≤ f(y) + gᵀ(y⁺ - y) + L/2 ‖y⁺ - y‖² + δ/4

    A step that breaks the inequality is refused and L doubled; one that keeps it halves L. The
    slack, a quarter of the gap δ, is what makes this work where f has kinks. Tangents averaged with
    weights 1/L prove f(y) - min f ≤ D²/(2 Σ 1/L) + δ/4 on a set of diameter D; whenever the gap has
    halved, the average restarts. So a gap of ε takes O(D² L/ε) evaluations where ∇f is Lipschitz
    and O(D² M²/ε²) where only f is, the order that is best for a method without memory.

    Source: Nesterov, "Universal gradient methods for convex optimization problems", Mathematical
    Programming 152, 2015, section 2, with ε there replaced by the certified gap.
    """

    def solve(self, problem: Problem) -> Solution:
        """Solve a problem."""
        oracle, certificate = Oracle(problem), Certificate(problem)
        gamma = certificate.gamma[:, None]
        active = np.arange(problem.size)
        start = to_array(problem.start).reshape(problem.size, problem.dim)
        _, y, value, gradient = oracle.evaluate(start, active)
        offset = certificate.observe(active, y, value, gradient)
        goal = certificate.gap / 2
        L, floor = _first_curvature(goal, gradient)
        for _ in range(problem.max_evaluations - 1):
            active = np.flatnonzero(~certificate.done)
            if len(active) == 0:
                break
            slack = MODEL_SLACK * certificate.gap[active] + certificate.noise[active]
            trial = problem.project(y - gradient / L[:, None])[active]
            _, trial, reached, steeper = oracle.evaluate(trial, active)
            new = certificate.observe(active, trial, reached, steeper)
            step = trial - y[active]
            model = (gradient[active] * step).sum(1) + L[active] / 2 * (step**2).sum(1)
            kept = reached <= value[active] + model + slack
            L[active] = np.where(kept, np.maximum(L[active] / 2, floor[active]), 2 * L[active])

            rows = active[kept]
            slope = gradient[rows] - gamma[rows] * y[rows]
            certificate.average(rows, 1 / L[rows], offset[rows], slope)
            y[rows], value[rows], gradient[rows], offset[rows] = (
                trial[kept],
                reached[kept],
                steeper[kept],
                new[kept],
            )
            halved = np.flatnonzero(certificate.gap <= goal)
            goal[halved] = certificate.gap[halved] / 2
            certificate.restart(halved)
        return certificate.solution()


@dataclass(frozen=True)
class AcceleratedGradient:
    """Minimise any convex function by an accelerated projected gradient method.

    With the tangents ℓ_j averaged so far, of weights a_j that sum to A, and L a² = (A + a)(1 + γA),

        z = argmin { Σ_j a_j ℓ_j(y) + ½ ‖y - y₀‖² : y ∈ 𝒴 },        ℓ_j with its γ/2 ‖y - y_j‖²
        y = x + τ (z - x),    x⁺ = x + τ (z⁺ - x),    τ = a/(A + a)

    where z⁺ is z once the tangent at y has joined. As in ``ProjectedGradient``, L is doubled or
    halved by trial, with a slack of τ δ/4, and the average restarts when the gap δ has halved.
    It proves f(x) - min f ≤ D²/(2A) + δ/4, so a gap of ε takes O(D √(L/ε)) steps of two
    evaluations where ∇f is Lipschitz, and O(D² M²/ε²) where only f is: both are best possible.

    Source: Nesterov, "Universal gradient methods for convex optimization problems", Mathematical
    Programming 152, 2015, section 4, with ε there replaced by the certified gap; γ as in his
    "Gradient methods for minimizing composite functions", Mathematical Programming 140, 2013. The
    unrestarted method for smooth f is algorithm 3 of Tseng, "On accelerated proximal gradient
    methods for convex-concave optimization", 2008; FISTA (Beck & Teboulle, 2009) is similar.
    """

    def solve(self, problem: Problem) -> Solution:
        """Solve a problem."""
        oracle, certificate = Oracle(problem), Certificate(problem)
        gamma = certificate.gamma
        everyone = np.arange(problem.size)
        x = to_array(problem.start).reshape(problem.size, problem.dim)
        _, x, value, gradient = oracle.evaluate(x, everyone)
        certificate.observe(everyone, x, value, gradient)
        origin, z = x.copy(), x.copy()
        goal = certificate.gap / 2
        L, floor = _first_curvature(goal, gradient)
        for _ in range((problem.max_evaluations - 1) // 2):
            active = np.flatnonzero(~certificate.done)
            if len(active) == 0:
                break
            slack = MODEL_SLACK * certificate.gap[active] + certificate.noise[active]
            before = certificate.weight[active]
            inertia = 1 + gamma[active] * before
            weight = (inertia + np.sqrt(inertia * (inertia + 4 * L[active] * before))) / (
                2 * L[active]
            )
            tau = (weight / (before + weight))[:, None]
            y = x[active] + tau * (z[active] - x[active])
            _, y, value, gradient = oracle.evaluate(y, active)
            offset = certificate.observe(active, y, value, gradient)
            slope = gradient - gamma[active, None] * y

            pull = origin - certificate.slope
            pull[active] -= weight[:, None] * slope
            stiffness = 1 + gamma * certificate.weight
            stiffness[active] += gamma[active] * weight
            ahead = problem.project(pull / stiffness[:, None])[active]
            trial = x[active] + tau * (ahead - x[active])
            _, trial, reached, steeper = oracle.evaluate(trial, active)
            certificate.observe(active, trial, reached, steeper)
            step = trial - y
            model = value + (gradient * step).sum(1) + L[active] / 2 * (step**2).sum(1)
            kept = reached <= model + tau[:, 0] * slack
            L[active] = np.where(kept, np.maximum(L[active] / 2, floor[active]), 2 * L[active])

            rows = active[kept]
            certificate.average(rows, weight[kept], offset[kept], slope[kept])
            x[rows], z[rows] = trial[kept], ahead[kept]
            halved = np.flatnonzero((certificate.gap <= goal) | (certificate.weight > MAX_WEIGHT))
            goal[halved] = certificate.gap[halved] / 2
            certificate.restart(halved)
            x[halved] = origin[halved] = z[halved] = certificate.best_y[halved]
        return certificate.solution()


def _first_curvature(goal: Array, gradient: Array) -> tuple[Array, Array]:
    """The first L, a step of which would close the gap were f linear, and the least to try."""
    L: Array = (gradient**2).sum(1) / np.where(goal > 0, 2 * goal, 1.0)
    floor = np.maximum(1e-9 * L, 1e-300)
    return np.maximum(L, floor), floor
