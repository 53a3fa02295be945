"""The master problem of the bundle method: one small linear program a sample, compiled.

Cuts are few (a handful to a few dozen) and the dimension is small, so a batch of tensors would
spend its time launching operations. Here each sample takes a few microseconds instead, on the CPU,
whatever device the function lives on: cuts are all that has to travel.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

ITERATIONS = 30
FAST = {"contract", "reassoc", "arcp", "nsz"}  # NaN and infinity keep their meaning
TO_BOUNDARY = 0.99  # share of the way to the boundary that one interior-point step may go


@njit(cache=True, fastmath=FAST)
def factor(H, n):  # type: ignore[no-untyped-def]
    """Cholesky factor of the lower triangle of H, in place; tiny pivots are lifted."""
    for j in range(n):
        pivot = H[j, j]
        for k in range(j):
            pivot -= H[j, k] * H[j, k]
        root = math.sqrt(max(pivot, 1e-14 * H[j, j], 1e-300))
        H[j, j] = root
        for i in range(j + 1, n):
            s = H[i, j]
            for k in range(j):
                s -= H[i, k] * H[j, k]
            H[i, j] = s / root


@njit(cache=True, fastmath=FAST)
def substitute(L, n, x):  # type: ignore[no-untyped-def]
    """Solve L Lᵀ x = x in place."""
    for i in range(n):
        s = x[i]
        for k in range(i):
            s -= L[i, k] * x[k]
        x[i] = s / L[i, i]
    for i in range(n - 1, -1, -1):
        s = x[i]
        for k in range(i + 1, n):
            s -= L[k, i] * x[k]
        x[i] = s / L[i, i]


@njit(cache=True, fastmath=FAST)
def separable_minimum(c, p, finite, total, u):  # type: ignore[no-untyped-def]
    """min Σ cᵢ uᵢ + pᵢ uᵢ²/2 over 0 ≤ uᵢ (≤ 1 where ``finite``), Σ uᵢ = total unless it is NaN.

    Where a coordinate is not ``finite`` it is free, and pᵢ > 0. The minimiser is left in u. With a
    total, the value is the dual bound at the best multiplier found, so it never exceeds the
    minimum.
    """
    n = len(c)
    low, high = 0.0, 0.0
    if not math.isnan(total):
        low, high = -c.max() - p.max() - 1.0, -c.min() + 1.0
    nu = 0.0
    for _ in range(100):
        nu = (low + high) / 2
        mass = 0.0
        for i in range(n):
            slope = c[i] + nu
            if p[i] > 0:
                u[i] = -slope / p[i]
                if finite[i]:
                    u[i] = min(max(u[i], 0.0), 1.0)
            else:
                u[i] = 1.0 if slope < 0 else 0.0
            mass += u[i]
        if math.isnan(total) or high - low <= 1e-15 * (abs(low) + abs(high)):
            break
        if mass > total:
            low = nu
        else:
            high = nu
    value = 0.0 if math.isnan(total) else -nu * total
    for i in range(n):
        value += (c[i] + nu) * u[i] + p[i] * u[i] * u[i] / 2
    return value


@njit(cache=True, fastmath=FAST)
def solve_master(h, a, m, p, finite, total, u, kappa, stop, target, query):  # type: ignore[no-untyped-def]
    """min over u of Σ pᵢ uᵢ²/2 + max_j (a_j + h_jᵀu), by a primal-dual interior-point method.

    Written with t ≥ a_j + h_jᵀu, the iterates stay primal feasible; any of their multipliers,
    scaled to sum to one, proves a lower bound, and that proof, not a residual, ends the loop.

    Args:
        h, a, m: the cuts, ``(≥ m, n)`` and ``(≥ m,)``, scaled so that the answer is about -1.
        p: curvature, ``(n,)``, ≥ 0.
        finite: which coordinates live in [0, 1]; the others are free.
        total: Σ uᵢ, or NaN.
        u: a strictly feasible start, best the last query: it is well centred; overwritten.
        kappa: accuracy at which an iterate, still well centred, is copied to ``query``.
        stop: accuracy at which to stop.
        target: stop, too, once the bound reaches this value.
        query: the next point to evaluate; overwritten.

    Returns:
        The lower bound.
    """
    n = len(p)
    curved = p.max() > 0
    has_total = not math.isnan(total)
    H = np.zeros((n + 1, n + 1))
    e = np.zeros(n + 1)
    s, z, ds, dz = np.empty(m), np.empty(m), np.zeros(m), np.zeros(m)
    wl, wu, dl, du = np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n)
    d, predictor = np.zeros(n + 1), np.zeros(n + 1)
    mean, corner = np.empty(n), np.empty(n)

    top = -np.inf
    for j in range(m):
        s[j] = a[j]
        for i in range(n):
            s[j] += h[j, i] * u[i]
        top = max(top, s[j])
    t = top + 0.1
    inverse = 0.0
    for j in range(m):
        s[j] = t - s[j]
        inverse += 1 / s[j]
    mu = 1 / inverse
    for j in range(m):
        z[j] = mu / s[j]
    count = m
    for i in range(n):
        if finite[i]:
            wl[i] = mu / u[i]
            wu[i] = mu / (1 - u[i])
            count += 2

    bound = -np.inf
    captured = False
    for iteration in range(ITERATIONS + 1):
        model = -np.inf
        for j in range(m):
            model = max(model, t - s[j])
        mass = z.sum()
        offset = 0.0
        mean[:] = 0.0
        for j in range(m):
            weight = z[j] / mass
            offset += weight * a[j]
            for i in range(n):
                mean[i] += weight * h[j, i]
        for i in range(n):
            model += p[i] * u[i] * u[i] / 2
        bound = max(bound, offset + separable_minimum(mean, p, finite, total, corner))
        if not captured and iteration > 0 and model - bound <= kappa:
            captured = True
            query[:] = u
        if bound >= target or (captured and model - bound <= stop) or iteration == ITERATIONS:
            break

        mu = 0.0
        for j in range(m):
            mu += s[j] * z[j]
        for i in range(n):
            if finite[i]:
                mu += wl[i] * u[i] + wu[i] * (1 - u[i])
        mu /= count

        H[:] = 0.0
        for j in range(m):
            weight = z[j] / s[j]
            for i in range(n):
                hw = weight * h[j, i]
                for k in range(i + 1):
                    H[i, k] += hw * h[j, k]
                H[n, i] -= hw
            H[n, n] += weight
        for i in range(n):
            H[i, i] += p[i] + 1e-14
            if finite[i]:
                H[i, i] += wl[i] / u[i] + wu[i] / (1 - u[i])
        factor(H, n + 1)
        if has_total:
            e[:n] = 1.0
            e[n] = 0.0
            substitute(H, n + 1, e)

        sigma = 0.0
        step_p, step_d = 1.0, 1.0
        for phase in range(2):
            for i in range(n):
                d[i] = -p[i] * u[i]
                if finite[i]:
                    low = sigma * mu - phase * dl[i] * predictor[i]
                    high = sigma * mu + phase * du[i] * predictor[i]
                    d[i] += low / u[i] - high / (1 - u[i])
                    dl[i] = low / u[i] - wl[i]
                    du[i] = high / (1 - u[i]) - wu[i]
            d[n] = -1.0
            for j in range(m):
                dz[j] = (sigma * mu - phase * ds[j] * dz[j]) / s[j] - z[j]
                weight = z[j] + dz[j]
                for i in range(n):
                    d[i] -= h[j, i] * weight
                d[n] += weight
            substitute(H, n + 1, d)
            if has_total:
                nu = d[:n].sum() / e[:n].sum()
                for i in range(n + 1):
                    d[i] -= nu * e[i]
            step_p, step_d = 1.0, 1.0
            for j in range(m):
                ds[j] = d[n]
                for i in range(n):
                    ds[j] -= h[j, i] * d[i]
                dz[j] -= z[j] / s[j] * ds[j]
                if ds[j] < 0:
                    step_p = min(step_p, -s[j] / ds[j])
                if dz[j] < 0:
                    step_d = min(step_d, -z[j] / dz[j])
            for i in range(n):
                if finite[i]:
                    dl[i] -= wl[i] / u[i] * d[i]
                    du[i] += wu[i] / (1 - u[i]) * d[i]
                    if d[i] < 0:
                        step_p = min(step_p, -u[i] / d[i])
                    if d[i] > 0:
                        step_p = min(step_p, (1 - u[i]) / d[i])
                    if dl[i] < 0:
                        step_d = min(step_d, -wl[i] / dl[i])
                    if du[i] < 0:
                        step_d = min(step_d, -wu[i] / du[i])
            if phase == 0:
                after = 0.0
                for j in range(m):
                    after += (s[j] + step_p * ds[j]) * (z[j] + step_d * dz[j])
                for i in range(n):
                    if finite[i]:
                        after += (u[i] + step_p * d[i]) * (wl[i] + step_d * dl[i])
                        after += (1 - u[i] - step_p * d[i]) * (wu[i] + step_d * du[i])
                sigma = max((after / count / mu) ** 3, 1e-6)
                predictor[:] = d
        step_p, step_d = min(1.0, TO_BOUNDARY * step_p), min(1.0, TO_BOUNDARY * step_d)
        if curved:
            step_p = step_d = min(step_p, step_d)
        for i in range(n):
            u[i] += step_p * d[i]
            if finite[i]:
                u[i] = min(max(u[i], 1e-13), 1 - 1e-13)
                wl[i] = max(wl[i] + step_d * dl[i], 1e-300)
                wu[i] = max(wu[i] + step_d * du[i], 1e-300)
        t += step_p * d[n]
        for j in range(m):
            s[j] = max(s[j] + step_p * ds[j], 1e-300)
            z[j] = max(z[j] + step_d * dz[j], 1e-300)
    if not captured:
        query[:] = u
    return bound
