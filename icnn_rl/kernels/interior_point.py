"""A batch of small convex programs, each solved by an interior-point method in compiled code.

Cuts are few (a handful to a few dozen) and a batch of tensors would spend its time launching
operations. Here each sample takes a few microseconds instead, on the CPU, whatever device the
functions live on: cuts are all that has to travel.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from icnn_rl.kernels.compiling import compiled
from icnn_rl.kernels.equations import balance, restore, violation
from icnn_rl.kernels.linear_algebra import (
    factor_narrow,
    factor_wide,
    row_dot,
    step_narrow,
    step_wide,
)
from icnn_rl.kernels.tangents import separable_minimum

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]

ITERATIONS = 40
STEP_TO_BOUNDARY = 0.99  # share of the way
MIN_COMPLEMENTARITY = 1e-12  # below it steps are rounding error
FEASIBLE = 1e-10  # violation, relative to the unit box, up to which an iterate is feasible


class Models(NamedTuple):
    """A batch of models: the maximum of affine functions, a quadratic, and a polyhedron.

        min over u of  Σ pᵢ uᵢ²/2 + uᵀP u/2 + max_{j ≥ rows} (a_j + h_jᵀu)
        subject to     a_j + h_jᵀu ≤ 0 for j < rows,    E u = e,    0 ≤ uᵢ ≤ 1 where finite

    Attributes:
        h, a: cuts after ``rows`` constraints, ``(size, m, n)`` and ``(size, m)``; more may follow.
        E, e: equations, ``(size, q, n)`` and ``(size, q)``.
        P: positive semidefinite matrices, lower triangles, ``(size, n, n)``, or ``NO_MATRIX``.
        p: diagonals added to them, ``(size, n)``, ≥ 0, and > 0 where a coordinate is not finite.
        finite: which coordinates live in [0, 1], ``(size, n)``.
    """

    h: Array
    a: Array
    E: Array
    e: Array
    P: Array
    p: Array
    finite: npt.NDArray[np.bool_]


NO_MATRIX = np.zeros((1, 0, 0))


def minimize_models(
    models: Models,
    points: Array,
    *,
    rows: int = 0,
    count: int | None = None,
    active: Index | None = None,
    shift: Array | float = 0.0,
    scale: Array | float = 1.0,
    accuracy: float = -1.0,
    target: Array | float = np.inf,
) -> Array:
    """Minimise models by a primal-dual interior-point method.

    Any multipliers, scaled so that those of the cuts sum to one, prove a lower bound, and that
    proof, not a residual, ends the loop. The Newton equations are solved in the space of u or in
    that of the multipliers, whichever is smaller.

    Args:
        models: the models.
        points: starts strictly inside (0, 1), best the last answers to like problems, which are
            well centred, ``(size, n)``; those of the active samples become the minimisers.
        rows: the number of constraints.
        count: the number of constraints and cuts; all by default.
        active: the samples to solve; all by default.
        shift, scale: numbers, or ``(size,)``, that bring the models to order one: their cuts are
            (a_j - shift + h_jᵀu) / scale, and P and p are divided by ``scale``.
        accuracy: distance of value and bound, in units of ``scale``, at which to stop; below 0 to
            go on to the last digits.
        target: stop, too, once the bound reaches this value; a number or ``(size,)``.

    Returns:
        Lower bounds of the minima, ``(len(active),)``.

    Source: Mehrotra, "On the implementation of a primal-dual interior point method", SIAM Journal
    on Optimization 2, 1992.
    """
    size, m, n = models.h.shape
    m, q = m if count is None else count, models.e.shape[1]
    active = np.arange(size) if active is None else active
    bounds = np.empty(len(active))
    shift, scale, target = (
        t if isinstance(t, np.ndarray) else np.full(size, t) for t in (shift, scale, target)
    )
    wide = m + q if m + q <= n and models.P.shape[1] == 0 else 0
    narrow = 0 if wide else n
    work = (  # room for the numbers of one model: vectors of length m, n and others, matrices
        tuple(np.empty((6, m))),
        tuple(np.empty((14, n))),
        tuple(np.empty(length) for length in (rows + q, q, wide, wide)),
        tuple(
            np.empty(shape)
            for shape in (
                *((m, n), (m + q, n), (wide, wide), (wide, n)),
                *((narrow, narrow), (q, narrow), (q, q), models.P.shape[1:]),
            )
        ),
    )
    _minimize_models(active, rows, m, models, shift, scale, accuracy, target, points, bounds, work)
    return bounds


@compiled
def _minimize_models(  # type: ignore[no-untyped-def]
    active, rows, m, models, shift, scale, accuracy, target, points, bounds, work
):
    """The loop of ``minimize_models`` over samples."""
    of_rows, of_coordinates, others, matrices = work
    a, s, z, ds, dz, w = of_rows
    g, wl, wu, dl, du, d, predictor, D, p, mean, mean_h, Pu, wanted, row = of_coordinates
    residual, nu, x, v = others
    h, G, K, scaled, M, X, S, P = matrices
    n, q = points.shape[1], models.e.shape[1]
    wide = len(K) > 0
    for index in range(len(active)):
        sample = active[index]
        E, e, finite, u = models.E[sample], models.e[sample], models.finite[sample], points[sample]
        unit = scale[sample]
        goal = (target[sample] - shift[sample]) / unit
        for j in range(m):
            a[j] = models.a[sample, j]
            if j >= rows:
                a[j] = (a[j] - shift[sample]) / unit
            for i in range(n):
                h[j, i] = models.h[sample, j, i] / (unit if j >= rows else 1.0)
        for i in range(n):
            p[i] = models.p[sample, i] / unit
        for i in range(len(P)):
            for k in range(i + 1):
                P[i, k] = models.P[sample, i, k] / unit
        curved = len(P) > 0
        for j in range(q):
            for i in range(n):
                G[m + j, i] = E[j, i]
        for j in range(rows):
            for i in range(n):
                G[j, i] = h[j, i]
        for i in range(n):
            curved = curved or p[i] > 0
            Pu[i] = dl[i] = du[i] = predictor[i] = 0.0
            if finite[i]:
                u[i] = min(max(u[i], 1e-12), 1 - 1e-12)
            g[i] = 1 - u[i]  # kept apart from u, so that it does not end at its rounding error

        top = -np.inf
        for j in range(m):
            ds[j] = dz[j] = 0.0
            s[j] = a[j] + row_dot(h, j, u, n)
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
        pairs = m
        for i in range(n):
            if finite[i]:
                wl[i] = mu / u[i]
                wu[i] = mu / g[i]
                pairs += 2

        bound = -np.inf
        rho, first_mu, first_off, last_mu = 0.0, 0.0, 0.0, np.inf
        for iteration in range(ITERATIONS + 1):
            off = 0.0
            for j in range(rows):
                residual[j] = -a[j] - s[j] - row_dot(h, j, u, n)
                off = max(off, abs(residual[j]))
            for k in range(q):
                residual[rows + k] = e[k] - row_dot(E, k, u, n)
                off = max(off, abs(residual[rows + k]))

            model, mass = -np.inf, 0.0
            for j in range(rows, m):
                model = max(model, t - s[j])
                mass += z[j]
            offset = 0.0
            for i in range(n):
                mean[i] = 0.0
            for j in range(m):
                weight = z[j] / mass
                offset += weight * a[j]
                for i in range(n):
                    mean[i] += weight * h[j, i]
            if len(P) > 0:
                for i in range(n):
                    Pu[i] = row_dot(P, i, u, i + 1)
                    for k in range(i):
                        Pu[k] += P[i, k] * u[i]
                form = 0.0
                for i in range(n):
                    mean[i] += Pu[i]
                    form += Pu[i] * u[i]
                offset -= form / 2
                model += form / 2
            for i in range(n):
                model += p[i] * u[i] * u[i] / 2
                D[i] = p[i]
                if finite[i]:
                    D[i] += wl[i] / u[i] + wu[i] / g[i]
            if q > 0:
                for i in range(n):
                    wanted[i] = -p[i] * u[i]
                    if finite[i]:
                        wanted[i] += (wl[i] - wu[i]) / mass
                offset -= balance(E, e, D, wanted, p, finite, mean, S, nu, row)
            bound = max(bound, offset + separable_minimum(mean, p, finite))
            if bound >= goal or iteration == ITERATIONS:
                break
            close = iteration > 0 and model - bound <= accuracy
            if close and violation(h, a, rows, E, e, u) <= FEASIBLE:
                break

            mu = 0.0
            for j in range(m):
                mu += s[j] * z[j]
                w[j] = z[j] / s[j]
            for i in range(n):
                if finite[i]:
                    mu += wl[i] * u[i] + wu[i] * g[i]
            mu /= pairs
            if mu < MIN_COMPLEMENTARITY and (mu > 0.5 * last_mu or mu < MIN_COMPLEMENTARITY**2):
                break
            last_mu = mu
            if iteration == 0:
                first_mu, first_off = mu, off
            # t is measured from a plane of the cuts' mean slope, so that what is large in all cuts
            # cancels here and not in the equations: near a kink, cuts differ in their last digits
            # only. Differences to the heaviest cut come first, so that its own is exact.
            total, heaviest = 0.0, rows
            for j in range(rows, m):
                total += w[j]
                if w[j] > w[heaviest]:
                    heaviest = j
            for i in range(n):
                mean_h[i] = 0.0
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
                total = factor_wide(G, m, q, rows, w, D, scaled, K, x)
            else:
                rho = factor_narrow(G, m, q, w, D, P, M, X, S)

            sigma, dt, step_p, step_d = 0.0, 0.0, 1.0, 1.0
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
                    dt = step_wide(G, m, q, rows, D, scaled, K, x, total, residual, dt, d, v)
                else:
                    dt /= total
                    step_narrow(G, m, q, M, X, S, rho, residual, rows, d, nu)
                step_p, step_d = 1.0, 1.0
                for j in range(m):
                    ds[j] = (dt if j >= rows else residual[j]) - row_dot(G, j, d, n)
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
                        predictor[i] = d[i]
                        if finite[i]:
                            after += (u[i] + step_p * d[i]) * (wl[i] + step_d * dl[i])
                            after += (g[i] - step_p * d[i]) * (wu[i] + step_d * du[i])
                    sigma = max((after / pairs / mu) ** 3, 1e-6)
                    if off * first_mu > 10 * first_off * mu and off > FEASIBLE:
                        sigma = 1.0  # feasibility first: iterates must not jam at a bound
            total = dt
            for i in range(n):
                total += d[i]
            for j in range(m):
                total += dz[j]
            if not np.isfinite(total):
                break  # the last digits are used up
            step_p, step_d = (
                min(1.0, STEP_TO_BOUNDARY * step_p),
                min(1.0, STEP_TO_BOUNDARY * step_d),
            )
            if curved:
                step_p = step_d = min(step_p, step_d)
            for i in range(n):
                u[i] += step_p * d[i]
                dt += mean_h[i] * d[i]
                if finite[i]:
                    u[i] = max(u[i], 1e-300)
                    g[i] = max(g[i] - step_p * d[i], 1e-300)
                    wl[i] = max(wl[i] + step_d * dl[i], 1e-300)
                    wu[i] = max(wu[i] + step_d * du[i], 1e-300)
            t += step_p * dt
            for j in range(m):
                s[j] = max(s[j] + step_p * ds[j], 1e-300)
                z[j] = max(z[j] + step_d * dz[j], 1e-300)
            if q > 0:
                restore(h, s, m, E, e, u, g, finite, S, nu, row)
        bounds[index] = shift[sample] + unit * bound
