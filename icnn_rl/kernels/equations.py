"""The equations of a model in an interior-point method: their multipliers, and a way back to them.

The arguments are those of the model in ``interior_point``: constraints h, a in the first ``rows``
rows, equations E u = e, diagonals p, and ``finite``, which tells the coordinates within [0, 1].
"""

from __future__ import annotations

import numpy as np

from icnn_rl.kernels.compiling import inner
from icnn_rl.kernels.linear_algebra import factor, row_dot, substitute

ROUNDING = 1e-15  # relative error of a sum


@inner
def violation(h, a, rows, E, e, u):  # type: ignore[no-untyped-def]
    """How far u is from the constraints and equations: the largest violation of a row, ≥ 0."""
    n = len(u)
    worst = 0.0
    for j in range(rows):
        worst = max(worst, a[j] + row_dot(h, j, u, n))
    for j in range(len(e)):
        worst = max(worst, abs(row_dot(E, j, u, n) - e[j]))
    return worst


@inner
def _slope(c, E, a, move, p, finite):  # type: ignore[no-untyped-def]
    """E_aᵀu at the minimiser u of Σ cᵢ uᵢ + pᵢ uᵢ²/2 for c moved along row a of E."""
    total = 0.0
    for i in range(len(c)):
        if E[a, i] != 0:
            moved = c[i] + move * E[a, i]
            u = 1.0 if moved < 0 else 0.0
            if p[i] > 0:
                u = -moved / p[i]
                if finite[i]:
                    u = min(max(u, 0.0), 1.0)
            total += E[a, i] * u
    return total


@inner
def balance(E, e, D, wanted, p, finite, mean, gram, nu, row):  # type: ignore[no-untyped-def]
    """Add Eᵀν to ``mean`` so that the bound is high; returns eᵀν and what rounding may take.

    Any ν proves a bound, and near a vertex the multipliers of the Newton equations have lost their
    digits. So ν is chosen anew: by least squares, ``mean`` coming close to ``wanted`` with the
    weight on coordinates off their bounds, and then one by one to the maximum of the bound, which
    for equations without common coordinates, such as those of simplices, is the maximum over all.
    """
    q, n = E.shape
    for a in range(q):
        nu[a] = 0.0
        for i in range(n):
            row[i] = E[a, i] / D[i]
            nu[a] += row[i] * (wanted[i] - mean[i])
        for b in range(a + 1):
            gram[a, b] = row_dot(E, b, row, n)
    factor(gram, q)
    substitute(gram, q, nu)
    total = 0.0
    for a in range(q):
        for i in range(n):
            mean[i] += nu[a] * E[a, i]
    for a in range(q):
        size = abs(e[a])
        low, high = np.inf, -np.inf  # around every move at which a coordinate of mean is 0 or -p
        for i in range(n):
            size += abs(E[a, i])
            if E[a, i] != 0 and finite[i]:
                first, second = -mean[i] / E[a, i], -(mean[i] + p[i]) / E[a, i]
                low, high = min(low, first, second), max(high, first, second)
        # Where an equation pins coordinates to their bounds, ν grows, and digits go.
        total += ROUNDING * abs(nu[a]) * size
        move = 0.0
        if low <= high:
            # Beyond them the bound goes on rising only if the equations cannot be met.
            reach = 1e3 * (1 + abs(low) + abs(high))
            low, high = low - reach, high + reach
            for _ in range(100):
                move = (low + high) / 2
                if not low < move < high:
                    break
                slope = _slope(mean, E, a, move, p, finite) - e[a]
                if slope == 0:
                    break
                if slope > 0:
                    low = move
                else:
                    high = move
        total += ROUNDING * abs(move) * size
        nu[a] += move
        total += nu[a] * e[a]
        for i in range(n):
            mean[i] += move * E[a, i]
    return total


@inner
def restore(h, s, m, E, e, u, g, finite, gram, nu, move):  # type: ignore[no-untyped-def]
    """Move u back onto E u = e, in the metric in which bounds are far, if it stays inside.

    Newton steps lose digits of the equations as iterates come close to bounds.
    """
    q, n = E.shape
    for a in range(q):
        nu[a] = e[a] - row_dot(E, a, u, n)
        for i in range(n):
            room = min(u[i], g[i]) if finite[i] else 1.0
            move[i] = E[a, i] * room * room
        for b in range(a + 1):
            gram[a, b] = row_dot(E, b, move, n)
    factor(gram, q)
    substitute(gram, q, nu)
    for i in range(n):
        room = min(u[i], g[i]) if finite[i] else 1.0
        move[i] = 0.0
        for a in range(q):
            move[i] += E[a, i] * nu[a] * room * room
        if finite[i] and not abs(move[i]) <= 0.5 * room:
            return
    for j in range(m):
        if not row_dot(h, j, move, n) <= 0.5 * s[j]:
            return
    for j in range(m):
        s[j] -= row_dot(h, j, move, n)
    for i in range(n):
        u[i] += move[i]
        g[i] -= move[i]
