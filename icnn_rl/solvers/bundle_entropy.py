"""The bundle entropy method: tangents of g plus the entropy itself, for f = g + entropy."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from icnn_rl.functions import EDGE, STEEP, ConvexFunction, NegativeEntropy, Sum
from icnn_rl.kernels.newton_equations import compiled, dot, factor, substitute
from icnn_rl.solvers.problem import ROUNDING, Oracle, Problem, to_array
from icnn_rl.solvers.solution import Solution

ITERATIONS = 50
STOP = 0.1  # share of the gap at which the master's bound is good enough
CENTERING = 0.1  # share of the complementarity that a step of the master aims at
TO_BOUNDARY = 0.99  # share of the way to the boundary that one step may go
FRESH = 0.5  # weight that the newest cut starts with


@compiled
def negative_entropy(y):  # type: ignore[no-untyped-def]
    """The entropy term of one coordinate, for α = 1, as ``NegativeEntropy`` defines it."""
    inside = min(abs(y), EDGE)
    outside = abs(y) - inside
    p = (1 + inside) / 2
    return p * math.log(p) + (1 - p) * math.log(1 - p) + (STEEP + outside / 2) * outside


@compiled
def respond(c, alpha, lower, upper, y, flexibility):  # type: ignore[no-untyped-def]
    """min Σ cᵢ yᵢ + α h(yᵢ) over lower ≤ y ≤ upper; the minimiser and -dyᵢ/dcᵢ are left behind."""
    total = 0.0
    for i in range(len(c)):
        x = -c[i] / alpha
        if abs(x) <= STEEP:
            y[i] = math.tanh(x)
            flexibility[i] = (1 - y[i] * y[i]) / alpha
        else:
            y[i] = math.copysign(EDGE + abs(x) - STEEP, x)
            flexibility[i] = 1 / alpha
        if not lower[i] < y[i] < upper[i]:
            y[i] = min(max(y[i], lower[i]), upper[i])
            flexibility[i] = 0.0
        total += c[i] * y[i] + alpha * negative_entropy(y[i])
    return total


@compiled
def solve_master(h, a, m, alpha, lower, upper, target, weights, y):  # type: ignore[no-untyped-def]
    """max over λ in the simplex of Σ_j λ_j a_j + min_y { (Σ_j λ_j h_j)ᵀy + α h(y) }.

    A primal-dual interior-point method in λ alone: y is a closed form of it. With the slacks
    s_j = t - a_j - h_jᵀy of the primal, min t + α h(y), a step solves

        (H D Hᵀ + diag(s/λ)) Δλ = a + H y + σμ/λ - ν 1,      1ᵀ Δλ = 0,

    and is halved until the barrier function rises. The diagonal keeps the system regular where cuts
    coincide, and every λ proves a bound.

    Args:
        h, a, m: the cuts, ``(≥ m, n)`` and ``(≥ m,)``, scaled so that the answer is about -1.
        alpha: α in the same scale.
        lower, upper: the box.
        target: stop once the bound reaches this value.
        weights: λ, a start inside the simplex; overwritten.
        y: the minimiser of the model for that λ; overwritten.

    Returns:
        The bound, NaN if the arithmetic broke down.
    """
    n = len(lower)
    c, D, trial_y, trial_D = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    r, s, one, trial = np.empty(m), np.empty(m), np.empty(m), np.empty(m)
    M = np.empty((m, m))
    scaled = np.empty((m, n))

    c[:] = 0.0
    for j in range(m):
        for i in range(n):
            c[i] += weights[j] * h[j, i]
    value = respond(c, alpha, lower, upper, y, D)
    for j in range(m):
        value += weights[j] * a[j]
    bound = value
    for iteration in range(ITERATIONS):
        top, mean = -np.inf, 0.0
        for j in range(m):
            r[j] = a[j] + dot(h[j], y)
            top = max(top, r[j])
            mean += weights[j] * r[j]
        if value >= target or top - mean <= STOP:
            break
        if iteration == 0:
            for j in range(m):
                s[j] = top + STOP - r[j]
        mu = 0.0
        for j in range(m):
            mu += s[j] * weights[j] / m
        mu *= CENTERING

        for j in range(m):
            for i in range(n):
                scaled[j, i] = h[j, i] * D[i]
            for k in range(j + 1):
                M[j, k] = dot(scaled[j], h[k])
            M[j, j] += s[j] / weights[j]
            one[j] = 1.0
            r[j] += mu / weights[j]
        factor(M, m)
        substitute(M, m, one)
        substitute(M, m, r)
        nu = r.sum() / one.sum()
        step, step_s = 1.0, 1.0
        merit = value
        for j in range(m):
            r[j] -= nu * one[j]
            one[j] = (mu - s[j] * r[j]) / weights[j] - s[j]
            if r[j] < 0:
                step = min(step, -TO_BOUNDARY * weights[j] / r[j])
            if one[j] < 0:
                step_s = min(step_s, -TO_BOUNDARY * s[j] / one[j])
            merit += mu * math.log(weights[j])

        for _ in range(30):
            c[:] = 0.0
            mass = 0.0
            for j in range(m):
                trial[j] = weights[j] + step * r[j]
                mass += trial[j]
            reached = 0.0
            barrier = 0.0
            for j in range(m):
                trial[j] /= mass
                reached += trial[j] * a[j]
                barrier += mu * math.log(trial[j])
                for i in range(n):
                    c[i] += trial[j] * h[j, i]
            reached += respond(c, alpha, lower, upper, trial_y, trial_D)
            if reached + barrier >= merit - 1e-12 * abs(merit):
                break
            step /= 2
        if not abs(reached) < np.inf:  # NaN as well
            return np.nan
        value = reached
        bound = max(bound, value)
        weights[:m] = trial
        y[:] = trial_y
        D[:] = trial_D
        for j in range(m):
            s[j] = max(s[j] + step_s * one[j], 1e-10 * mu)
    return bound


@compiled
def advance(  # type: ignore[no-untyped-def]
    active, y, value, gradient, count, cut_h, cut_a, weights, lower, upper, alpha, epsilon, tol,
    best_y, best, bound, done,
):  # fmt: skip
    """Add one cut to each active sample, improve its bound, and replace y by the next point."""
    n = y.shape[1]
    for row in range(len(active)):
        i = active[row]
        m = count[i] + 1
        count[i] = m
        a, noise, total = value[row], abs(value[row]), value[row]
        for k in range(n):
            g = gradient[row, k]
            a -= g * y[row, k]
            cut_h[i, m - 1, k] = g
            noise += abs(g) * (abs(y[row, k]) + min(upper[i, k] - lower[i, k], 2.0))
            total += alpha * negative_entropy(y[row, k])
        noise *= ROUNDING * epsilon
        cut_a[i, m - 1] = a - noise
        if total < best[i]:
            best[i] = total
            best_y[i] = y[row]
        weights[i, : m - 1] *= 1 - FRESH
        weights[i, m - 1] = FRESH if m > 1 else 1.0
        gap = best[i] - bound[i]
        if bound[i] == -np.inf:
            gap = max(abs(best[i]), alpha, 1e-300)

        proved = solve_master(
            cut_h[i, :m] / gap, (cut_a[i, :m] - best[i]) / gap, m, alpha / gap, lower[i], upper[i],
            -tol / gap, weights[i], y[row],
        )  # fmt: skip
        if math.isnan(proved):  # beyond float64: the sample is given up with the gap it has
            done[i] = True
            continue
        bound[i] = max(bound[i], best[i] + gap * proved)
        done[i] = best[i] - bound[i] <= max(tol, 2 * noise)


def split(f: ConvexFunction) -> tuple[ConvexFunction | None, float]:
    """f = g + entropy: g and the entropy's weight α."""
    if isinstance(f, NegativeEntropy):
        return None, f.alpha
    if not isinstance(f, Sum):
        return f, 0.0
    (left, a), (right, b) = split(f.left), split(f.right)
    if left is None or right is None:
        return right if left is None else left, a + b
    return (f if a + b == 0 else left + right), a + b


def solve(problem: Problem) -> Solution:
    """Minimise f = g + α Σᵢ h(yᵢ), h the negative entropy, by the bundle entropy method.

    The model keeps the entropy as it is and replaces g by the maximum of its tangents. Its
    minimiser is unique, has a closed form in the multipliers of the tangents, and is the next
    point.

    Raises:
        TypeError: f has no entropy term, or the set has constraints that couple coordinates.

    Source: Amos, Xu & Kolter, "Input Convex Neural Networks", ICML 2017, section 4.2.
    """
    g, alpha = split(problem.f)
    if g is None or alpha <= 0:
        raise TypeError(
            "solver: 'bundle_entropy' needs f = g + negative_entropy(alpha), alpha > 0; "
            "use 'bundle'"
        )
    if problem.over.equations(problem.start) or problem.over.inequalities(problem.start):
        raise TypeError(f"solver: 'bundle_entropy' needs a box, got {problem.over}; use 'bundle'")
    size, n = problem.size, problem.dim
    oracle = Oracle(replace(problem, f=g))
    lower, upper = (problem.flat(b, n) for b in problem.over.bounds(problem.start))
    y = to_array(problem.start).reshape(size, n)
    best_y, best, bound = y.copy(), np.full(size, np.inf), np.full(size, -np.inf)
    count, done = np.zeros(size, np.int64), np.zeros(size, np.bool_)
    cut_h, cut_a, weights = np.empty((size, 16, n)), np.empty((size, 16)), np.empty((size, 16))
    active = np.arange(size)
    for evaluation in range(problem.max_evaluations):
        if evaluation == cut_a.shape[1]:
            cut_h, cut_a, weights = (
                np.concatenate([t, np.empty_like(t)], axis=1) for t in (cut_h, cut_a, weights)
            )
        y, value, gradient = oracle.value_and_gradient(y, active)
        advance(
            active, y, value, gradient, count, cut_h, cut_a, weights, lower, upper, alpha,
            problem.epsilon, problem.tol, best_y, best, bound, done,
        )  # fmt: skip
        going = ~done[active]
        active, y = active[going], y[going]
        if len(active) == 0:
            break
    return problem.solution(best_y, best, bound, count)
