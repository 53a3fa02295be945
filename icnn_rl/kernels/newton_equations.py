"""The linear equations of an interior-point step, in compiled code.

    (D + P) du + Gᵀv = d,      g_jᵀdu - τ_j dt - v_j / w_j = r_j,      Σ_j τ_j v_j = -t

The rows g_j of G are constraints (τ = 0), cuts (τ = 1, r = 0) and equations (τ = 0, 1/w = 0), in
this order. They are solved either for du, with the multipliers v eliminated, or for v.
"""

from __future__ import annotations

import math

from numba import njit

# A division by zero is infinite as everywhere in NumPy. Sums keep their order: compiled code looks
# up how far apart in memory its arrays happen to lie, and takes a vectorised loop or a plain one.
compiled = njit(cache=True, error_model="numpy")


# A loop that writes to no array has one form only, so here sums may be vectorised.
@njit(cache=True, fastmath={"contract", "reassoc"}, error_model="numpy")
def dot(x, y):  # type: ignore[no-untyped-def]
    """xᵀy."""
    s = x.dtype.type(0)
    for i in range(len(x)):
        s += x[i] * y[i]
    return s


@compiled
def factor(H, n):  # type: ignore[no-untyped-def]
    """Cholesky factor of the lower triangle of H, in place; tiny pivots are lifted."""
    for j in range(n):
        pivot = H[j, j] - dot(H[j, :j], H[j, :j])
        root = math.sqrt(max(pivot, 1e-14 * H[j, j], 1e-300))
        H[j, j] = root
        for i in range(j + 1, n):
            H[i, j] = (H[i, j] - dot(H[i, :j], H[j, :j])) / root


@compiled
def substitute(L, n, x):  # type: ignore[no-untyped-def]
    """Solve L Lᵀ x = x in place."""
    for i in range(n):
        x[i] = (x[i] - dot(L[i, :i], x[:i])) / L[i, i]
    for i in range(n - 1, -1, -1):
        x[i] /= L[i, i]
        for k in range(i):
            x[k] -= L[i, k] * x[i]


@compiled
def factor_narrow(G, w, D, P, M, X, S):  # type: ignore[no-untyped-def]
    """Factor the Newton equations in the space of u: D + P + Σ w_j g_j g_jᵀ + ρ EᵀE, and of E.

    E du is known, so the last term changes nothing but the condition. Returns ρ.
    """
    size, n = G.shape
    m = len(w)
    M[:] = 0.0
    if len(P) > 0:
        M[:] = P
    for j in range(m):
        for i in range(n):
            wg = w[j] * G[j, i]
            for k in range(i + 1):
                M[i, k] += wg * G[j, k]
    rho = 0.0
    if size > m:
        for i in range(n):
            rho += M[i, i]
        for j in range(m, size):
            for i in range(n):
                for k in range(i + 1):
                    M[i, k] += rho * G[j, i] * G[j, k]
    for i in range(n):
        M[i, i] += D[i] + 1e-14
    factor(M, n)
    for a in range(size - m):
        X[a] = G[m + a]
        substitute(M, n, X[a])
        for b in range(a + 1):
            S[a, b] = dot(G[m + a], X[b])
    factor(S, size - m)
    return rho


@compiled
def step_narrow(G, m, M, X, S, rho, residual, d, nu):  # type: ignore[no-untyped-def]
    """Turn the right-hand side d into the step, by way of the multipliers nu of E."""
    n = G.shape[1]
    for a in range(len(nu)):
        for i in range(n):
            d[i] += rho * residual[a] * G[m + a, i]
    substitute(M, n, d)
    for a in range(len(nu)):
        nu[a] = dot(G[m + a], d) - residual[a]
    substitute(S, len(nu), nu)
    for a in range(len(nu)):
        for i in range(n):
            d[i] -= nu[a] * X[a, i]


@compiled
def factor_wide(G, w, rows, D, scaled, K, x):  # type: ignore[no-untyped-def]
    """Factor the Newton equations in the space of the multipliers: G D⁻¹ Gᵀ + 1/w.

    Returns τᵀK⁻¹τ, where τ marks the cuts.
    """
    size, n = G.shape
    m = len(w)
    for j in range(size):
        for i in range(n):
            scaled[j, i] = G[j, i] / D[i]
        for k in range(j + 1):
            K[j, k] = dot(scaled[j], G[k])
        if j < m:
            K[j, j] += 1 / w[j]
    factor(K, size)
    x[:] = 0.0
    x[rows:m] = 1.0
    substitute(K, size, x)
    return x[rows:m].sum()


@compiled
def step_wide(G, rows, m, D, scaled, K, x, total, residual, t, d, v):  # type: ignore[no-untyped-def]
    """Turn the right-hand side (d, t) into the step, by way of the multipliers v; returns dt."""
    size, n = G.shape
    for j in range(size):
        v[j] = dot(scaled[j], d)
    for j in range(rows):
        v[j] -= residual[j]
    for j in range(m, size):
        v[j] -= residual[rows + j - m]
    substitute(K, size, v)
    t = (t + v[rows:m].sum()) / total
    for j in range(size):
        v[j] -= t * x[j]
        for i in range(n):
            d[i] -= v[j] * G[j, i]
    for i in range(n):
        d[i] /= D[i]
    return t


@compiled
def restore(h, s, E, e, u, g, finite, gram, nu, move):  # type: ignore[no-untyped-def]
    """Move u back onto E u = e, in the metric in which bounds are far, if it stays inside.

    Newton steps lose digits of the equations as iterates come close to bounds.
    """
    q, n = E.shape
    for a in range(q):
        nu[a] = e[a] - dot(E[a], u)
        for i in range(n):
            room = min(u[i], g[i]) if finite[i] else 1.0
            move[i] = E[a, i] * room * room
        for b in range(a + 1):
            gram[a, b] = dot(move, E[b])
    factor(gram, q)
    substitute(gram, q, nu)
    for i in range(n):
        room = min(u[i], g[i]) if finite[i] else 1.0
        move[i] = 0.0
        for a in range(q):
            move[i] += E[a, i] * nu[a] * room * room
        if finite[i] and not abs(move[i]) <= 0.5 * room:
            return
    for j in range(len(s)):
        if not dot(h[j], move) <= 0.5 * s[j]:
            return
    for j in range(len(s)):
        s[j] -= dot(h[j], move)
    for i in range(n):
        u[i] += move[i]
        g[i] -= move[i]
