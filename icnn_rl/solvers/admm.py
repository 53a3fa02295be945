"""ADMM on the linear program of a network: linear algebra and projections alone."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import norm

from icnn_rl.linear_program import LinearProgram
from icnn_rl.solvers.certificate import ROUNDING, Certificate
from icnn_rl.solvers.problem import Array, Index, Oracle, Problem
from icnn_rl.solvers.solution import Solution

SWEEPS = 20  # between two evaluations of f
RELAXATION = 1.6
PROXIMITY = 1e-6  # weight that keeps the linear system regular
UNBALANCED = 3.0  # ratio of the residuals from which the penalty is adapted
FACTORS = 2**24  # entries of the factorised matrices held at a time


def solve(problem: Problem) -> Solution:
    """Minimise a piecewise-linear function by the alternating direction method of multipliers.

        min cᵀv    subject to    q = A v,  q ≤ b,    x = y,  x ∈ 𝒴,        v = (y, w)

    with one variable w for every hidden unit. A sweep solves a linear system in v, whose matrix is
    factorised once a sample, clips q, projects x, and adds the violations to the multipliers. The
    penalty ρ of each sample follows the ratio of its residuals; for a linear objective that leaves
    the factors as they are. Every twenty sweeps f is evaluated at x, and the multipliers prove a
    bound as those of any solver do (``LinearProgram.tangent``). Samples are taken in groups, as
    many as fit the memory.

    Raises:
        TypeError: f is not piecewise linear.

    Source: Boyd, Parikh, Chu, Peleato & Eckstein, "Distributed optimization and statistical
    learning via the alternating direction method of multipliers", 2011; relaxation and penalty as
    in Stellato et al., "OSQP: an operator splitting solver for quadratic programs", 2020.
    """
    if not problem.f.piecewise_linear:
        raise TypeError("solver: 'admm' needs a piecewise-linear function; use 'bundle'")
    certificate = Certificate(problem)
    size, shape = problem.size, problem.batch_shape
    first = 0
    while first < size:
        lps: list[LinearProgram] = []
        while first + len(lps) < size:
            index = np.unravel_index(first + len(lps), shape) if shape else ()
            lps.append(problem.f.to_lp(tuple(int(k) for k in index)))
            if (len(lps) + 1) * len(lps[0].c) ** 2 > FACTORS:
                break
        _solve_group(problem, lps, np.arange(first, first + len(lps)), certificate)
        first += len(lps)
    return certificate.solution()


def _solve_group(
    problem: Problem, lps: list[LinearProgram], group: Index, certificate: Certificate
) -> None:
    """Run sweeps until every sample of the group is done, and tell the certificate."""
    n, columns = problem.dim, len(lps[0].c)
    lengths = np.array([1 / norm(lp.A, axis=1) for lp in lps])  # rows of length one
    blocks = [sp.diags_array(s) @ lp.A for s, lp in zip(lengths, lps, strict=True)]
    A = sp.block_diag(blocks, format="csr")
    AT = A.T.tocsr()
    b, c = lengths * np.array([lp.b for lp in lps]), np.array([lp.c for lp in lps])
    ridge = np.where(np.arange(columns) < n, 1.0, 0.0) + PROXIMITY
    gram = np.array([(block.T @ block).toarray() for block in blocks])
    # Unchecked: where a weight is not finite, the first evaluation says so.
    factors = torch.linalg.cholesky_ex(torch.from_numpy(gram + np.diag(ridge))).L
    del gram

    oracle = Oracle(problem)
    everyone = problem.flat(problem.start, n).copy()
    x = everyone[group]
    v = np.concatenate([x, np.zeros((len(lps), columns - n))], axis=1)
    q, u, p = np.minimum((A @ v.ravel()).reshape(b.shape), b), np.zeros_like(b), np.zeros_like(x)
    rho = np.maximum(abs(c).max(1, keepdims=True), 1e-300)
    for _ in range(problem.max_evaluations):
        active = np.flatnonzero(~certificate.done[group])
        y, value, gradient = oracle.value_and_gradient(x[active], group[active])
        certificate.observe(group[active], y, value, gradient)
        _prove(problem, [lps[i] for i in active], group[active], (lengths * u)[active], certificate)
        if certificate.done[group].all():
            return

        for _ in range(SWEEPS):
            pull = PROXIMITY * v - c / rho + (AT @ (q - u).ravel()).reshape(v.shape)
            pull[:, :n] += x - p
            v = (
                torch.cholesky_solve(torch.from_numpy(pull).unsqueeze(-1), factors)
                .squeeze(-1)
                .numpy()
            )
            rows = (A @ v.ravel()).reshape(b.shape)
            relaxed = RELAXATION * rows + (1 - RELAXATION) * q + u
            q = np.minimum(relaxed, b)
            u = relaxed - q
            relaxed = RELAXATION * v[:, :n] + (1 - RELAXATION) * x + p
            everyone[group] = relaxed
            x = problem.project(everyone)[group]
            p = relaxed - x

        violation = np.maximum(abs(rows - q).max(1, initial=0.0), abs(v[:, :n] - x).max(1))
        force = (AT @ u.ravel()).reshape(v.shape)
        force[:, :n] += p
        stationarity = abs(c / rho + force).max(1) / abs(c / rho).max(1)
        ratio = violation / np.maximum(abs(q).max(1, initial=1e-300), abs(x).max(1)) / stationarity
        ratio = np.where((ratio < 1 / UNBALANCED**2) | (ratio > UNBALANCED**2), ratio, 1.0)
        change = np.sqrt(np.clip(ratio, 1e-2, 1e2))[:, None]
        rho, u, p = rho * change, u / change, p / change


def _prove(
    problem: Problem,
    lps: list[LinearProgram],
    rows: Index,
    multipliers: Array,
    certificate: Certificate,
) -> None:
    """Raise bounds by the affine functions that the multipliers stand for."""
    lower, upper = (problem.flat(t, problem.dim)[rows] for t in problem.over.bounds(problem.start))
    reach = np.maximum(abs(lower), abs(upper))
    offsets, slopes = np.empty(len(rows)), np.empty_like(reach)
    for i, lp in enumerate(lps):
        offsets[i], slopes[i], terms = lp.tangent(multipliers[i])
        terms *= ROUNDING * np.finfo(np.float64).eps
        offsets[i] -= terms[-1] + terms[:-1] @ reach[i]
    certificate.prove(rows, offsets, slopes)
