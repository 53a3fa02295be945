"""Compiled linear algebra: dot products, small Cholesky factors, an interior-point step.

The equations of a step are

    (D + P) du + Gᵀv = d,      g_jᵀdu - τ_j dt - v_j / w_j = r_j,      Σ_j τ_j v_j = -t

The rows g_j of G are constraints (τ = 0), cuts (τ = 1, r = 0) and equations (τ = 0, 1/w = 0), in
this order. They are solved either for du, with the multipliers v eliminated, or for v.

Loops instead of views and array expressions, and instead of LAPACK: they compile in a fraction of
the time, and for so few unknowns they run as fast.
"""

from __future__ import annotations

import math

from icnn_rl.kernels.compiling import inner, reduction


@reduction
def dot(x, y):  # type: ignore[no-untyped-def]
    """xᵀy."""
    total = x.dtype.type(0)
    for i in range(len(x)):
        total += x[i] * y[i]
    return total


@reduction
def row_dot(A, j, x, n):  # type: ignore[no-untyped-def]
    """The product of the first n entries of row j of A and of x."""
    total = A.dtype.type(0)
    for i in range(n):
        total += A[j, i] * x[i]
    return total


@reduction
def rows_dot(A, j, B, k, n):  # type: ignore[no-untyped-def]
    """The product of the first n entries of row j of A and of row k of B."""
    total = A.dtype.type(0)
    for i in range(n):
        total += A[j, i] * B[k, i]
    return total


@inner
def factor(H, n):  # type: ignore[no-untyped-def]
    """Cholesky factor of the lower triangle of H, in place; tiny pivots are lifted."""
    for j in range(n):
        pivot = H[j, j] - rows_dot(H, j, H, j, j)
        root = math.sqrt(max(pivot, 1e-14 * H[j, j], 1e-300))
        H[j, j] = root
        for i in range(j + 1, n):
            H[i, j] = (H[i, j] - rows_dot(H, i, H, j, j)) / root


@inner
def substitute(L, n, x):  # type: ignore[no-untyped-def]
    """Solve L Lᵀ x = x in place."""
    for i in range(n):
        x[i] = (x[i] - row_dot(L, i, x, i)) / L[i, i]
    for i in range(n - 1, -1, -1):
        x[i] /= L[i, i]
        for k in range(i):
            x[k] -= L[i, k] * x[i]


@inner
def factor_narrow(G, m, q, w, D, P, M, X, S):  # type: ignore[no-untyped-def]
    """Factor the equations in the space of u: D + P + Σ w_j g_j g_jᵀ + ρ EᵀE, and of E.

    E du is known, so the last term changes nothing but the condition. Returns ρ.
    """
    n = len(D)
    for i in range(n):
        for k in range(i + 1):
            M[i, k] = P[i, k] if len(P) > 0 else 0.0
    for j in range(m):
        for i in range(n):
            wg = w[j] * G[j, i]
            for k in range(i + 1):
                M[i, k] += wg * G[j, k]
    rho = 0.0
    if q > 0:
        for i in range(n):
            rho += M[i, i]
        for j in range(m, m + q):
            for i in range(n):
                for k in range(i + 1):
                    M[i, k] += rho * G[j, i] * G[j, k]
    for i in range(n):
        M[i, i] += D[i] + 1e-14
    factor(M, n)
    for a in range(q):
        for i in range(n):
            X[a, i] = G[m + a, i]
        substitute(M, n, X[a])
        for b in range(a + 1):
            S[a, b] = rows_dot(G, m + a, X, b, n)
    factor(S, q)
    return rho


@inner
def step_narrow(G, m, q, M, X, S, rho, residual, rows, d, nu):  # type: ignore[no-untyped-def]
    """Turn the right-hand side d into the step, by way of the multipliers nu of E."""
    n = len(d)
    for a in range(q):
        for i in range(n):
            d[i] += rho * residual[rows + a] * G[m + a, i]
    substitute(M, n, d)
    for a in range(q):
        nu[a] = row_dot(G, m + a, d, n) - residual[rows + a]
    substitute(S, q, nu)
    for a in range(q):
        for i in range(n):
            d[i] -= nu[a] * X[a, i]


@inner
def factor_wide(G, m, q, rows, w, D, scaled, K, x):  # type: ignore[no-untyped-def]
    """Factor the equations in the space of the multipliers: G D⁻¹ Gᵀ + 1/w.

    Returns τᵀK⁻¹τ, where τ marks the cuts.
    """
    n = len(D)
    for j in range(m + q):
        for i in range(n):
            scaled[j, i] = G[j, i] / D[i]
        for k in range(j + 1):
            K[j, k] = rows_dot(scaled, j, G, k, n)
        if j < m:
            K[j, j] += 1 / w[j]
    factor(K, m + q)
    for j in range(m + q):
        x[j] = 1.0 if rows <= j < m else 0.0
    substitute(K, m + q, x)
    total = 0.0
    for j in range(rows, m):
        total += x[j]
    return total


@inner
def step_wide(G, m, q, rows, D, scaled, K, x, total, residual, t, d, v):  # type: ignore[no-untyped-def]
    """Turn the right-hand side (d, t) into the step, by way of the multipliers v; returns dt."""
    n = len(d)
    for j in range(m + q):
        v[j] = row_dot(scaled, j, d, n)
        if j < rows:
            v[j] -= residual[j]
        if j >= m:
            v[j] -= residual[rows + j - m]
    substitute(K, m + q, v)
    for j in range(rows, m):
        t += v[j]
    t /= total
    for j in range(m + q):
        v[j] -= t * x[j]
        for i in range(n):
            d[i] -= v[j] * G[j, i]
    for i in range(n):
        d[i] /= D[i]
    return t
