"""Projected Newton: a quadratic model of a smooth f, minimised over the box itself."""

from __future__ import annotations

import numpy as np

from icnn_rl.kernels.interior_point import minimize_model, separable_minimum
from icnn_rl.kernels.newton_equations import compiled, dot, factor, substitute
from icnn_rl.kernels.polyhedron import Polyhedron
from icnn_rl.solvers.compiled_network import CompiledNetwork, evaluate
from icnn_rl.solvers.newton_on_device import DECREASE, RIDGE
from icnn_rl.solvers.problem import ROUNDING, NonFiniteError, Oracle, Problem, to_array
from icnn_rl.solvers.solution import Solution

EXACT = 1e-12  # accuracy of a bound, relative to the tangent's size
MODEL = 1e-8  # accuracy of the model's minimiser, relative to the gap


@compiled
def model_step(H, g, low, high, epsilon, d):  # type: ignore[no-untyped-def]
    """Minimise gᵀd + dᵀHd/2 over low ≤ d ≤ high, from d = 0, by projected Newton steps.

    A sweep minimises over each coordinate in turn. Then coordinates held at a bound by the
    gradient are set aside, a Newton step is taken in the rest and bent along the box until the
    model falls; a few rounds identify the right bounds. The bent step need not be one of descent
    while the bounds are wrong, the sweep always is.

    Returns:
        The decrease of the model, ≥ 0.

    Source: Bertsekas, "Projected Newton methods for optimization problems with simple
    constraints", SIAM Journal on Control and Optimization 20, 1982.
    """
    n = len(g)
    free = np.empty(n, np.int64)
    r, p, trial, moves = g.copy(), np.empty(n), np.empty(n), np.empty(n)
    L = np.empty((n, n))
    d[:] = 0.0
    ridge = 0.0
    for i in range(n):
        ridge += H[i, i]
    # Rounding may leave a singular H indefinite, so the ridge is at least as large.
    ridge *= max(RIDGE / n, ROUNDING * epsilon)
    ridge += 1e-12
    decrease = 0.0
    for _ in range(2 * n + 4):
        before = decrease
        for i in range(n):
            move = min(max(d[i] - r[i] / (H[i, i] + ridge), low[i]), high[i]) - d[i]
            decrease -= move * (r[i] + H[i, i] * move / 2)
            d[i] += move
            for k in range(n):
                r[k] += H[k, i] * move
        count = 0
        for i in range(n):
            if not ((d[i] <= low[i] and r[i] >= 0) or (d[i] >= high[i] and r[i] <= 0)):
                free[count] = i
                count += 1
        if count == 0:
            break
        for a in range(count):
            for b in range(a + 1):
                L[a, b] = H[free[a], free[b]]
            L[a, a] += ridge
            p[a] = -r[free[a]]
        factor(L, count)
        substitute(L, count, p)
        step, gain = 1.0, 0.0
        for _ in range(20):
            trial[:] = d
            for a in range(count):
                i = free[a]
                trial[i] = min(max(d[i] + step * p[a], low[i]), high[i])
            moves[:] = trial - d
            gain = 0.0
            for i in range(n):
                gain -= moves[i] * (r[i] + dot(H[i], moves) / 2)
            if gain > 0:
                break
            step /= 2
        if gain > 0:
            decrease += gain
            for i in range(n):
                r[i] += dot(H[i], moves)
            d[:] = trial
        if decrease - before <= 1e-12 * decrease:
            break
    return decrease


@compiled
def judge(  # type: ignore[no-untyped-def]
    active, y, value, gradient, count, origin, width, finite, h, a, E, e, center, gamma, epsilon,
    tol, base, best, step, model, share, bound, done, accepted,
):  # fmt: skip
    """Improve each active sample's bound, and accept its trial point or halve the step to it.

    ``base`` and ``best`` are the last accepted point and its value, ``step`` and ``model`` the
    direction from it and the decrease promised, ``share`` how much of it is being tried. Where a
    trial is refused, y becomes the next one. ``h`` and ``a`` hold the set's inequalities, and a
    last row for the tangent.
    """
    n = y.shape[1]
    rows = h.shape[1] - 1
    c, p, no_matrix = np.empty(n), np.empty(n), np.empty((0, 0))
    for row in range(len(active)):
        i = active[row]
        count[i] += 1
        offset, noise, size = value[row], abs(value[row]), 1e-300
        for k in range(n):
            d = y[row, k] - origin[i, k]
            offset += (gamma[i] / 2 * d - gradient[row, k]) * d
            c[k] = (gradient[row, k] - gamma[i] * d) * width[i, k]
            p[k] = gamma[i] * width[i, k] ** 2
            size += abs(c[k]) + p[k]
            reach = width[i, k] if finite[i, k] else abs(c[k]) / gamma[i]
            noise += abs(gradient[row, k]) * (abs(y[row, k]) + reach)
        noise *= ROUNDING * epsilon
        if rows + e.shape[1] == 0:
            proved = separable_minimum(c, p, finite[i])
        else:
            h[i, rows], a[i, rows] = c / size, 0.0
            # Where there are no bounds, the centre may be far away.
            start = np.where(finite[i], center[i], y[row] - origin[i])
            proved = size * minimize_model(
                h[i], a[i], rows, E[i], e[i], no_matrix, p / size, finite[i], start,
                EXACT, np.inf,
            )  # fmt: skip
        bound[i] = max(bound[i], offset - noise + proved)

        accepted[row] = value[row] <= best[i] - DECREASE * share[i] * model[i] + noise
        if accepted[row]:
            base[i] = y[row]
            best[i] = min(best[i], value[row])
        else:
            share[i] /= 2
            for k in range(n):
                y[row, k] = base[i, k] + share[i] * step[i, k]
        done[i] = best[i] - bound[i] <= max(tol, 2 * noise)


@compiled
def propose(  # type: ignore[no-untyped-def]
    active, y, gradient, hessian, origin, width, finite, h, a, E, e, center, epsilon, best, bound,
    step, model, share,
):  # fmt: skip
    """Replace each accepted point y by the minimiser of the quadratic model there."""
    n = y.shape[1]
    rows = h.shape[1] - 1
    low, high = np.empty(n), np.empty(n)
    P, p, u = np.empty((n, n)), np.empty(n), np.empty(n)
    for row in range(len(active)):
        i = active[row]
        # In units of the bounds, where one ridge suits all sides of an uneven box.
        unit = width[i]
        for k in range(n):
            u[k] = (y[row, k] - origin[i, k]) / max(unit[k], 1e-300)
            low[k] = -u[k] if finite[i, k] else -np.inf
            high[k] = (1 - u[k] if unit[k] > 0 else 0.0) if finite[i, k] else np.inf
            for other in range(k + 1):
                P[k, other] = hessian[row, k, other] * unit[k] * unit[other]
                P[other, k] = P[k, other]
        g = gradient[row] * unit
        if rows + e.shape[1] == 0:
            model[i] = model_step(P, g, low, high, epsilon, step[i])
        else:
            # As a quadratic form around 0 and in units of the gap.
            gap = best[i] - bound[i]
            ridge = np.trace(P) * max(RIDGE / n, ROUNDING * epsilon) + 1e-12
            P /= gap
            p[:] = ridge / gap
            h[i, rows] = g / gap - P @ u - p * u
            a[i, rows] = 0.0
            trial = np.where(finite[i], 0.9 * u + 0.1 * center[i], u)
            minimize_model(h[i], a[i], rows, E[i], e[i], P, p, finite[i], trial, MODEL, np.inf)
            step[i] = trial - u
            model[i] = -(g @ step[i] + gap * (step[i] @ (P @ step[i] + p * step[i])) / 2)
        step[i] *= unit
        share[i] = 1.0
        y[row] += step[i]


@compiled
def descend(  # type: ignore[no-untyped-def]
    network, evaluations, lower, upper, y, count, origin, width, finite, h, a, E, e, center, gamma,
    epsilon, tol, base, best, step, model, share, bound, done,
):  # fmt: skip
    """The loop of ``solve`` for a network in compiled form; y is used up.

    Gradient and Hessian come in one pass: there are no calls to be saved by waiting until a
    gradient has not proved its point. Returns a sample that is not finite,
    or -1, its value and its gradient.
    """
    size, n = y.shape
    active = np.arange(size)
    for evaluation in range(evaluations):
        left = len(active)
        last = evaluation + 1 == evaluations
        for row in range(left):
            for k in range(n):
                rounded = network.gate_y.dtype.type(y[row, k])
                y[row, k] = min(max(rounded, lower[active[row], k]), upper[active[row], k])
        value, gradient = np.empty(left), np.empty((left, n))
        hessian = np.empty((0 if last else left, n, n))
        evaluate(network, active, y, value, gradient, hessian)
        for row in range(left):
            if not (np.isfinite(value[row]) and np.isfinite(gradient[row]).all()):
                return active[row], value[row], gradient[row]
        accepted = np.empty(left, np.bool_)
        judge(
            active, y, value, gradient, count, origin, width, finite, h, a, E, e, center, gamma,
            epsilon, tol, base, best, step, model, share, bound, done, accepted,
        )  # fmt: skip
        if last:
            break
        # Those that go on move up, first the accepted ones, for which there is a new proposal.
        order = np.concatenate((
            np.flatnonzero(accepted & ~done[active]), np.flatnonzero(~accepted & ~done[active])
        ))  # fmt: skip
        new = np.sum(accepted & ~done[active])
        active, y = active[order], y[order]
        propose(
            active[:new], y, gradient[order], hessian[order], origin, width, finite, h, a, E, e,
            center, epsilon, best, bound, step, model, share,
        )  # fmt: skip
        if len(active) == 0:
            break
    return -1, 0.0, np.empty(0)


def solve(problem: Problem) -> Solution:
    """Minimise a smooth convex function by Newton steps within the set.

    Each step evaluates f and ∇f, and the tangent gives a bound; where that does not yet prove the
    point good enough, ∇²f follows, and the minimiser of the quadratic model over the set is the
    next point: on a box by projected Newton steps, elsewhere by an interior-point method. A step
    that brings too little is halved. Near the optimum the gap closes as fast as the method
    converges.

    Raises:
        TypeError: f is not smooth.

    Source: Bertsekas, "Projected Newton methods for optimization problems with simple
    constraints", SIAM Journal on Control and Optimization 20, 1982.
    """
    if not problem.f.smooth:
        raise TypeError("solver: 'newton' needs a smooth function; use 'bundle'")
    size, n = problem.size, problem.dim
    over = Polyhedron.of(problem.over, problem.start)
    gamma = problem.flat(problem.f.strong_convexity)
    last = np.zeros((size, 1))
    h = np.concatenate([over.A_ub, np.zeros((size, 1, n))], 1)
    a = np.concatenate([-over.b_ub, last], 1)
    constraints = (over.origin, over.width, over.finite, h, a, over.A_eq, over.b_eq)
    y, center = (to_array(t).reshape(size, n) for t in (problem.start, problem.center))
    center = over.inner(center)

    base, best, bound = y.copy(), np.full(size, np.inf), np.full(size, -np.inf)
    step, model, share = np.zeros((size, n)), np.zeros(size), np.ones(size)
    count, done = np.zeros(size, np.int64), np.zeros(size, np.bool_)
    network = CompiledNetwork.of(problem.f, hessians=True)
    if network is not None:
        lower, upper = (to_array(t).reshape(size, n) for t in problem.over.bounds(problem.start))
        lost, value, gradient = descend(
            network.arrays, problem.max_evaluations, lower, upper, y, count, *constraints, center,
            gamma, problem.epsilon, problem.tol, base, best, step, model, share, bound, done,
        )  # fmt: skip
        if lost >= 0:
            raise NonFiniteError.at(lost, value, gradient)
        return problem.solution(base, best, bound, count)
    oracle = Oracle(problem)
    active = np.arange(size)
    for evaluation in range(problem.max_evaluations):
        y, value, gradient = oracle.value_and_gradient(y, active)
        accepted = np.empty(len(active), np.bool_)
        judge(
            active, y, value, gradient, count, *constraints, center, gamma, problem.epsilon,
            problem.tol, base, best, step, model, share, bound, done, accepted,
        )  # fmt: skip
        if not (going := ~done[active]).all():
            active, accepted = active[going], accepted[going]
            y, gradient = y[going], gradient[going]
        if len(active) == 0 or evaluation + 1 == problem.max_evaluations:
            break
        if accepted.any():
            rows = np.flatnonzero(accepted)
            trial = y[rows]
            hessian = oracle.hessian(trial, active[rows])
            propose(
                active[rows], trial, gradient[rows], hessian, *constraints, center,
                problem.epsilon, best, bound, step, model, share,
            )  # fmt: skip
            y[rows] = trial
    return problem.solution(base, best, bound, count)
