"""A small convex program, solved by an interior-point method in compiled code.

Cuts are few (a handful to a few dozen) and a batch of tensors would spend its time launching
operations. Here each sample takes a few microseconds instead, on the CPU, whatever device the
functions live on: cuts are all that has to travel.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

ITERATIONS = 40
FAST = {"contract", "reassoc", "arcp", "nsz"}  # NaN and infinity keep their meaning
TO_BOUNDARY = 0.99  # share of the way to the boundary that one step may go
FEASIBLE = 1e-10  # violation, relative to the unit box, up to which an iterate is feasible


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
        x[i] /= L[i, i]
        for k in range(i):
            x[k] -= L[i, k] * x[i]


@njit(cache=True, fastmath=FAST)
def separable_minimum(c, p, finite):  # type: ignore[no-untyped-def]
    """min Σ cᵢ uᵢ + pᵢ uᵢ²/2 over 0 ≤ uᵢ ≤ 1 where ``finite``; elsewhere uᵢ is free and pᵢ > 0."""
    value = 0.0
    for i in range(len(c)):
        u = 1.0 if c[i] < 0 else 0.0
        if p[i] > 0:
            u = -c[i] / p[i]
            if finite[i]:
                u = min(max(u, 0.0), 1.0)
        value += (c[i] + p[i] * u / 2) * u
    return value


@njit(cache=True, fastmath=FAST)
def violation(A, a, E, e, u):  # type: ignore[no-untyped-def]
    """How far u is from A u + a ≤ 0 and E u = e: the largest violation of a row, ≥ 0."""
    worst = 0.0
    for j in range(len(a)):
        r = a[j]
        for i in range(len(u)):
            r += A[j, i] * u[i]
        worst = max(worst, r)
    for j in range(len(e)):
        r = -e[j]
        for i in range(len(u)):
            r += E[j, i] * u[i]
        worst = max(worst, abs(r))
    return worst


@njit(cache=True, fastmath=FAST)
def factor_narrow(h, w, rows, E, D, P, M, X, S):  # type: ignore[no-untyped-def]
    """Factor the Newton equations in (u, t): n + 1 unknowns, and one for each equation."""
    m, n = h.shape
    M[:] = 0.0
    if len(P) > 0:
        M[:n, :n] = P
    for j in range(m):
        for i in range(n):
            hw = w[j] * h[j, i]
            for k in range(i + 1):
                M[i, k] += hw * h[j, k]
        if j >= rows:
            for i in range(n):
                M[n, i] -= w[j] * h[j, i]
            M[n, n] += w[j]
    for i in range(n):
        M[i, i] += D[i] + 1e-14
    factor(M, n + 1)
    for a in range(len(E)):
        X[a, :n] = E[a]
        X[a, n] = 0.0
        substitute(M, n + 1, X[a])
        for b in range(a + 1):
            S[a, b] = np.dot(E[a], X[b, :n])
    factor(S, len(E))


@njit(cache=True, fastmath=FAST)
def step_narrow(E, M, X, S, residual, d, nu):  # type: ignore[no-untyped-def]
    """Turn the right-hand side d = (d_u, d_t) into the step, and nu into its multipliers."""
    n = len(d) - 1
    substitute(M, n + 1, d)
    for a in range(len(E)):
        nu[a] = np.dot(E[a], d[:n]) - residual[a]
    substitute(S, len(E), nu)
    for a in range(len(E)):
        d -= nu[a] * X[a]


@njit(cache=True, fastmath=FAST)
def factor_wide(G, w, rows, D, scaled, K, x):  # type: ignore[no-untyped-def]
    """Factor the Newton equations in the multipliers: one unknown a row of G, and t.

    Returns τᵀK⁻¹τ, where τ marks the cuts.
    """
    size, n = G.shape
    m = len(w)
    for j in range(size):
        for i in range(n):
            scaled[j, i] = G[j, i] / D[i]
        for k in range(j + 1):
            s = 0.0
            for i in range(n):
                s += scaled[j, i] * G[k, i]
            K[j, k] = s
        if j < m:
            K[j, j] += 1 / w[j]
    factor(K, size)
    x[:] = 0.0
    x[rows:m] = 1.0
    substitute(K, size, x)
    total = 0.0
    for j in range(rows, m):
        total += x[j]
    return total


@njit(cache=True, fastmath=FAST)
def step_wide(G, D, scaled, K, x, total, rows, residual, d, v):  # type: ignore[no-untyped-def]
    """Turn the right-hand side d = (d_u, d_t) into the step, and v into its multipliers."""
    size, n = G.shape
    m = size - (len(residual) - rows)
    for j in range(size):
        s = 0.0
        for i in range(n):
            s += scaled[j, i] * d[i]
        v[j] = s
    for j in range(rows):
        v[j] -= residual[j]
    for j in range(m, size):
        v[j] -= residual[rows + j - m]
    substitute(K, size, v)
    t = d[n]
    for j in range(rows, m):
        t += v[j]
    t /= total
    d[n] = t
    for j in range(size):
        v[j] -= t * x[j]
        for i in range(n):
            d[i] -= v[j] * G[j, i]
    for i in range(n):
        d[i] /= D[i]


@njit(cache=True, fastmath=FAST)
def minimize_model(  # type: ignore[no-untyped-def]
    h, a, rows, E, e, P, p, finite, u, kappa, stop, target, query,
):  # fmt: skip
    """A primal-dual interior-point method for the maximum of affine functions.

        min over u of  Σ pᵢ uᵢ²/2 + uᵀP u/2 + max_{j ≥ rows} (a_j + h_jᵀu)
        subject to     a_j + h_jᵀu ≤ 0 for j < rows,    E u = e,    0 ≤ uᵢ ≤ 1 where finite

    Any multipliers, scaled so that those of the cuts sum to one, prove a lower bound, and that
    proof, not a residual, ends the loop. The Newton equations are solved in the space of u or in
    that of the multipliers, whichever is smaller.

    Args:
        h, a: cuts after ``rows`` constraints, ``(m, n)`` and ``(m,)``, of order one.
        rows: the number of constraints.
        E, e: equations, ``(q, n)`` and ``(q,)``.
        P: a positive semidefinite matrix, lower triangle, ``(n, n)``, or empty for none.
        p: a diagonal added to it, ``(n,)``, ≥ 0, and > 0 where a coordinate is not finite.
        finite: which coordinates live in [0, 1].
        u: a start strictly inside (0, 1), best the last query: it is well centred; overwritten.
        kappa: accuracy at which an iterate, still well centred, is copied to ``query``.
        stop: accuracy at which to stop.
        target: stop, too, once the bound reaches this value.
        query: the next point to evaluate; overwritten.

    Returns:
        The lower bound.

    Source: Mehrotra, "On the implementation of a primal-dual interior point method", SIAM Journal
    on Optimization 2, 1992.
    """
    m, n = h.shape
    q = len(e)
    wide = m + q <= n and len(P) == 0
    if wide:
        G = np.empty((m + q, n))
        G[:m] = h
        G[m:] = E
        K, scaled = np.empty((m + q, m + q)), np.empty((m + q, n))
        x, v = np.empty(m + q), np.empty(m + q)
        M, X, S = np.empty((0, 0)), np.empty((0, 0)), np.empty((0, 0))
    else:
        G, K, scaled = np.empty((0, 0)), np.empty((0, 0)), np.empty((0, 0))
        x, v = np.empty(0), np.empty(0)
        M, X, S = np.empty((n + 1, n + 1)), np.empty((q, n + 1)), np.empty((q, q))
    curved = len(P) > 0 or p.max() > 0
    s, z, ds, dz, w = np.empty(m), np.empty(m), np.zeros(m), np.zeros(m), np.empty(m)
    wl, wu, dl, du = np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n)
    d, predictor, D = np.zeros(n + 1), np.zeros(n + 1), np.empty(n)
    mean, Pu, nu, new_nu = np.empty(n), np.zeros(n), np.zeros(q), np.zeros(q)
    residual = np.zeros(rows + q)  # of the constraints, then of the equations

    top = -np.inf
    for j in range(m):
        s[j] = a[j]
        for i in range(n):
            s[j] += h[j, i] * u[i]
        if j >= rows:
            top = max(top, s[j])
    t = top + 0.1
    inverse = 0.0
    for j in range(m):
        s[j] = t - s[j] if j >= rows else max(-s[j], 1e-3)
        if j >= rows:
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
    total = 0.0
    for iteration in range(ITERATIONS + 1):
        for j in range(rows):
            r = -a[j] - s[j]
            for i in range(n):
                r -= h[j, i] * u[i]
            residual[j] = r
        for k in range(q):
            r = e[k]
            for i in range(n):
                r -= E[k, i] * u[i]
            residual[rows + k] = r

        model, mass = -np.inf, 0.0
        for j in range(rows, m):
            model = max(model, t - s[j])
            mass += z[j]
        offset = 0.0
        mean[:] = 0.0
        for j in range(m):
            weight = z[j] / mass
            offset += weight * a[j]
            for i in range(n):
                mean[i] += weight * h[j, i]
        for k in range(q):
            weight = nu[k] / mass
            offset -= weight * e[k]
            for i in range(n):
                mean[i] += weight * E[k, i]
        if len(P) > 0:
            for i in range(n):
                Pu[i] = P[i, i] * u[i]
                for k in range(i):
                    Pu[i] += P[i, k] * u[k]
                    Pu[k] += P[i, k] * u[i]
            for i in range(n):
                mean[i] += Pu[i]
                offset -= Pu[i] * u[i] / 2
                model += Pu[i] * u[i] / 2
        for i in range(n):
            model += p[i] * u[i] * u[i] / 2
        bound = max(bound, offset + separable_minimum(mean, p, finite))
        if not captured and iteration > 0 and model - bound <= kappa:
            captured = violation(h[:rows], a[:rows], E, e, u) <= FEASIBLE
            if captured:
                query[:] = u
        if bound >= target or (captured and model - bound <= stop) or iteration == ITERATIONS:
            break

        mu = 0.0
        for j in range(m):
            mu += s[j] * z[j]
            w[j] = z[j] / s[j]
        for i in range(n):
            D[i] = p[i]
            if finite[i]:
                mu += wl[i] * u[i] + wu[i] * (1 - u[i])
                D[i] += wl[i] / u[i] + wu[i] / (1 - u[i])
        mu /= count
        if wide:
            total = factor_wide(G, w, rows, D, scaled, K, x)
        else:
            factor_narrow(h, w, rows, E, D, P, M, X, S)

        sigma = 0.0
        step_p, step_d = 1.0, 1.0
        for phase in range(2):
            for i in range(n):
                d[i] = -p[i] * u[i] - Pu[i]
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
                if j < rows and not wide:
                    weight -= w[j] * residual[j]
                for i in range(n):
                    d[i] -= h[j, i] * weight
                if j >= rows:
                    d[n] += weight
            if wide:
                step_wide(G, D, scaled, K, x, total, rows, residual, d, v)
                new_nu[:] = v[m:]
            else:
                step_narrow(E, M, X, S, residual[rows:], d, new_nu)
            step_p, step_d = 1.0, 1.0
            for j in range(m):
                ds[j] = d[n] if j >= rows else residual[j]
                for i in range(n):
                    ds[j] -= h[j, i] * d[i]
                dz[j] -= w[j] * ds[j]
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
        for k in range(q):
            nu[k] += step_d * (new_nu[k] - nu[k])
    if not captured:
        query[:] = u
    return bound
