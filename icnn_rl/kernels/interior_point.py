"""A small convex program, solved by an interior-point method in compiled code.

Cuts are few (a handful to a few dozen) and a batch of tensors would spend its time launching
operations. Here each sample takes a few microseconds instead, on the CPU, whatever device the
functions live on: cuts are all that has to travel.
"""

from __future__ import annotations

import numpy as np

from icnn_rl.kernels.newton_equations import (
    compiled,
    dot,
    factor,
    factor_narrow,
    factor_wide,
    restore,
    step_narrow,
    step_wide,
    substitute,
)

ITERATIONS = 40
TO_BOUNDARY = 0.99  # share of the way to the boundary that one step may go
ROUNDING = 1e-15  # relative error of a sum
EXHAUSTED = 1e-12  # complementarity below which a step that brings little is rounding error
FEASIBLE = 1e-10  # violation, relative to the unit box, up to which an iterate is feasible


@compiled
def separable_minimum(c, p, finite):  # type: ignore[no-untyped-def]
    """min Σ cᵢ uᵢ + pᵢ uᵢ²/2 over 0 ≤ uᵢ ≤ 1 where ``finite``; elsewhere uᵢ is free."""
    value = 0.0
    for i in range(len(c)):
        u = 1.0 if c[i] < 0 else 0.0
        if p[i] > 0:
            u = -c[i] / p[i]
            if finite[i]:
                u = min(max(u, 0.0), 1.0)
        elif c[i] != 0 and not finite[i]:
            return -np.inf
        value += (c[i] + p[i] * u / 2) * u
    return value


@compiled
def violation(A, a, E, e, u):  # type: ignore[no-untyped-def]
    """How far u is from A u + a ≤ 0 and E u = e: the largest violation of a row, ≥ 0."""
    worst = 0.0
    for j in range(len(a)):
        worst = max(worst, a[j] + dot(A[j], u))
    for j in range(len(e)):
        worst = max(worst, abs(dot(E[j], u) - e[j]))
    return worst


@compiled
def balance(E, e, D, wanted, p, finite, mean, gram, nu):  # type: ignore[no-untyped-def]
    """Add Eᵀν to ``mean`` so that the bound is high; returns eᵀν and what rounding may take.

    Any ν proves a bound, and near a vertex the multipliers of the Newton equations have lost their
    digits. So ν is chosen anew: by least squares, ``mean`` coming close to ``wanted`` with the
    weight on coordinates off their bounds, and then one by one to the maximum of the bound, which
    for equations without common coordinates, such as those of simplices, is the maximum over all.
    """
    q, n = E.shape
    for a in range(q):
        row = E[a] / D
        nu[a] = dot(row, wanted - mean)
        for b in range(a + 1):
            gram[a, b] = dot(row, E[b])
    factor(gram, q)
    substitute(gram, q, nu)
    lost = 0.0  # where an equation pins coordinates to their bounds, ν grows, and digits go
    for a in range(q):
        lost += ROUNDING * abs(nu[a]) * (abs(e[a]) + np.abs(E[a]).sum())
        for i in range(n):
            mean[i] += nu[a] * E[a, i]
    for a in range(q):
        low, high = np.inf, -np.inf  # around every move at which a coordinate of mean is 0 or -p
        for i in range(n):
            if E[a, i] != 0 and finite[i]:
                for level in (0.0, p[i]):
                    move = -(mean[i] + level) / E[a, i]
                    low, high = min(low, move), max(high, move)
        if not low <= high:
            continue
        # Beyond them the bound goes on rising only if the equations cannot be met.
        reach = 1e3 * (1 + abs(low) + abs(high))
        low, high, move = low - reach, high + reach, 0.0
        for _ in range(100):
            move = (low + high) / 2
            if not low < move < high:
                break
            slope = -e[a]
            for i in range(n):
                if E[a, i] != 0:
                    c = mean[i] + move * E[a, i]
                    u = 1.0 if c < 0 else 0.0
                    if p[i] > 0:
                        u = -c / p[i]
                        if finite[i]:
                            u = min(max(u, 0.0), 1.0)
                    slope += E[a, i] * u
            if slope == 0:
                break
            if slope > 0:
                low = move
            else:
                high = move
        lost += ROUNDING * abs(move) * (abs(e[a]) + np.abs(E[a]).sum())
        nu[a] += move
        for i in range(n):
            mean[i] += move * E[a, i]
    return dot(nu, e) + lost


@compiled
def minimize_model(  # type: ignore[no-untyped-def]
    h, a, rows, E, e, P, p, finite, u, accuracy, target,
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
        u: a start strictly inside (0, 1), best the last answer to a like problem, which is well
            centred; overwritten by the minimiser.
        accuracy: distance between value and bound at which to stop; below 0 to go on to the last
            digits.
        target: stop, too, once the bound reaches this value.

    Returns:
        The lower bound.

    Source: Mehrotra, "On the implementation of a primal-dual interior point method", SIAM Journal
    on Optimization 2, 1992.
    """
    m, n = h.shape
    q = len(e)
    wide = m + q <= n and len(P) == 0
    G = np.empty((m + q, n))  # constraints, cuts less their mean, equations
    G[:rows] = h[:rows]
    G[m:] = E
    mean_h = np.empty(n)
    space = m + q if wide else 0
    K, scaled = np.empty((space, space)), np.empty((space, n))
    x, v = np.empty(space), np.empty(space)
    space = 0 if wide else n
    M, X, S = np.empty((space, space)), np.empty((q, space)), np.empty((q, q))
    curved = len(P) > 0 or p.max() > 0
    s, z, ds, dz, w = np.empty(m), np.empty(m), np.zeros(m), np.zeros(m), np.empty(m)
    wl, wu, dl, du = np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n)
    for i in range(n):
        if finite[i]:
            u[i] = min(max(u[i], 1e-12), 1 - 1e-12)
    g = 1 - u  # kept apart from u, so that it does not end at its rounding error
    d, predictor, D = np.zeros(n), np.zeros(n), np.empty(n)
    mean, Pu, nu = np.empty(n), np.zeros(n), np.empty(q)
    gram = np.empty((q, q))
    residual = np.zeros(rows + q)  # of the constraints, then of the equations

    top = -np.inf
    for j in range(m):
        s[j] = a[j] + dot(h[j], u)
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
            wu[i] = mu / g[i]
            count += 2

    bound = -np.inf
    dt, rho, first_mu, first_off, last_mu = 0.0, 0.0, 0.0, 0.0, np.inf
    for iteration in range(ITERATIONS + 1):
        for j in range(rows):
            residual[j] = -a[j] - s[j] - dot(h[j], u)
        for k in range(q):
            residual[rows + k] = e[k] - dot(E[k], u)

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
        if len(P) > 0:
            for i in range(n):
                Pu[i] = dot(P[i, : i + 1], u[: i + 1])
                for k in range(i):
                    Pu[k] += P[i, k] * u[i]
            mean += Pu
            form = dot(Pu, u)
            offset -= form / 2
            model += form / 2
        for i in range(n):
            model += p[i] * u[i] * u[i] / 2
            D[i] = p[i]
            if finite[i]:
                D[i] += wl[i] / u[i] + wu[i] / g[i]
        if q > 0:
            wanted = (wl - wu) / mass - p * u
            offset -= balance(E, e, D, wanted, p, finite, mean, gram, nu)
        bound = max(bound, offset + separable_minimum(mean, p, finite))
        if bound >= target or iteration == ITERATIONS:
            break
        close = iteration > 0 and model - bound <= accuracy
        if close and violation(h[:rows], a[:rows], E, e, u) <= FEASIBLE:
            break

        mu = 0.0
        for j in range(m):
            mu += s[j] * z[j]
            w[j] = z[j] / s[j]
        for i in range(n):
            if finite[i]:
                mu += wl[i] * u[i] + wu[i] * g[i]
        mu /= count
        if mu < EXHAUSTED and (mu > 0.5 * last_mu or mu < EXHAUSTED**2):
            break
        last_mu = mu
        off = np.abs(residual).max() if rows + q > 0 else 0.0
        if iteration == 0:
            first_mu, first_off = mu, off
        # With t measured from a plane of the cuts' mean slope, what is large in all cuts cancels
        # here and not in the equations: near a kink the cuts differ in their last digits only.
        # Differences to the heaviest cut come first, so that its own distance to the mean is exact.
        total, heaviest = 0.0, rows
        for j in range(rows, m):
            total += w[j]
            if w[j] > w[heaviest]:
                heaviest = j
        mean_h[:] = 0.0
        for j in range(rows, m):
            weight = w[j] / total
            for i in range(n):
                G[j, i] = h[j, i] - h[heaviest, i]
                mean_h[i] += weight * G[j, i]
        for j in range(rows, m):
            for i in range(n):
                G[j, i] -= mean_h[i]
        for i in range(n):
            mean_h[i] += h[heaviest, i]
        if wide:
            total = factor_wide(G, w, rows, D, scaled, K, x)
        else:
            rho = factor_narrow(G, w, D, P, M, X, S)

        sigma = 0.0
        step_p, step_d = 1.0, 1.0
        for phase in range(2):
            for i in range(n):
                d[i] = -p[i] * u[i] - Pu[i]
                if finite[i]:
                    low = sigma * mu - phase * dl[i] * predictor[i]
                    high = sigma * mu + phase * du[i] * predictor[i]
                    d[i] += low / u[i] - high / g[i]
                    dl[i] = low / u[i] - wl[i]
                    du[i] = high / g[i] - wu[i]
            dt = -1.0
            for j in range(m):
                dz[j] = (sigma * mu - phase * ds[j] * dz[j]) / s[j] - z[j]
                weight = z[j] + dz[j]
                if j < rows and not wide:
                    weight -= w[j] * residual[j]
                for i in range(n):
                    d[i] -= h[j, i] * weight
                if j >= rows:
                    dt += weight
            for i in range(n):
                d[i] += mean_h[i] * dt
            if wide:
                dt = step_wide(G, rows, m, D, scaled, K, x, total, residual, dt, d, v)
            else:
                dt /= total
                step_narrow(G, m, M, X, S, rho, residual[rows:], d, nu)
            step_p, step_d = 1.0, 1.0
            for j in range(m):
                ds[j] = (dt if j >= rows else residual[j]) - dot(G[j], d)
                dz[j] -= w[j] * ds[j]
                if ds[j] < 0:
                    step_p = min(step_p, -s[j] / ds[j])
                if dz[j] < 0:
                    step_d = min(step_d, -z[j] / dz[j])
            for i in range(n):
                if finite[i]:
                    dl[i] -= wl[i] / u[i] * d[i]
                    du[i] += wu[i] / g[i] * d[i]
                    if d[i] < 0:
                        step_p = min(step_p, -u[i] / d[i])
                    if d[i] > 0:
                        step_p = min(step_p, g[i] / d[i])
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
                        after += (g[i] - step_p * d[i]) * (wu[i] + step_d * du[i])
                sigma = max((after / count / mu) ** 3, 1e-6)
                if off * first_mu > 10 * first_off * mu and off > FEASIBLE:
                    sigma = 1.0  # feasibility first: iterates must not jam at a bound
                predictor[:] = d
        if not np.isfinite(dt + d.sum() + dz.sum()):
            break  # the last digits are used up
        step_p, step_d = min(1.0, TO_BOUNDARY * step_p), min(1.0, TO_BOUNDARY * step_d)
        if curved:
            step_p = step_d = min(step_p, step_d)
        for i in range(n):
            u[i] += step_p * d[i]
            if finite[i]:
                u[i] = max(u[i], 1e-300)
                g[i] = max(g[i] - step_p * d[i], 1e-300)
                wl[i] = max(wl[i] + step_d * dl[i], 1e-300)
                wu[i] = max(wu[i] + step_d * du[i], 1e-300)
        t += step_p * (dt + dot(mean_h, d))
        for j in range(m):
            s[j] = max(s[j] + step_p * ds[j], 1e-300)
            z[j] = max(z[j] + step_d * dz[j], 1e-300)
        if q > 0:
            restore(h, s, E, e, u, g, finite, gram, nu, d)
    return bound
