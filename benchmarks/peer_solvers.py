"""Solvers for comparison alone, behind the same call: ``minimize(f, over, solver=ADMM())``.

ECOS and Clarabel need the extra ``solvers``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import clarabel
import ecos
import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import norm

from icnn_rl.functions.linear_program import LinearProgram
from icnn_rl.kernels import ROUNDING
from icnn_rl.solvers import Problem, Solution, Solver
from icnn_rl.solvers.certificate import Certificate
from icnn_rl.solvers.lp import Answer, Optimum, Program, solve_each
from icnn_rl.solvers.oracle import Oracle
from icnn_rl.solvers.problem import Array, Index

SWEEPS = 20  # between two evaluations of f
RELAXATION = 1.6
PROXIMITY = 1e-6  # weight that keeps the linear system regular
UNBALANCED = 3.0  # ratio of the residuals from which the penalty is adapted
TINY = 1e-300  # keeps 0/0 away
FACTORS = 2**24  # entries of the factorised matrices held at a time


@dataclass(frozen=True)
class ADMM:
    """Minimise a piecewise-linear function by the alternating direction method of multipliers.

        min cᵀv    subject to    q = A v,  low ≤ q ≤ high,        v = (y, w)

    with one variable w for every hidden unit; the rows of A are those of the function, those of 𝒴
    and y itself. A sweep solves a linear system in v, whose matrix is factorised once a sample,
    clips q, and adds the violation to the multipliers. The penalty ρ of each sample follows the
    ratio of its residuals; for a linear objective that leaves the factors as they are. Every twenty
    sweeps f is evaluated at the point of 𝒴 nearest to y, and the multipliers prove a bound as those
    of any solver do (``LinearProgram.tangent``). Samples are taken in groups, as many as fit the
    memory.

    Source: Boyd, Parikh, Chu, Peleato & Eckstein, "Distributed optimization and statistical
    learning via the alternating direction method of multipliers", 2011; relaxation and penalty as
    in Stellato et al., "OSQP: an operator splitting solver for quadratic programs", 2020.
    """

    def solve(self, problem: Problem) -> Solution:
        """Solve a problem.

        Raises:
            TypeError: f is not piecewise linear.
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
    n, columns, own = problem.dim, len(lps[0].c), len(lps[0].b)
    c, b = np.array([lp.c for lp in lps]), np.array([lp.b for lp in lps])
    matrix, low, high = _set_rows(problem, group)
    auxiliaries = sp.csr_array((matrix.shape[1], columns - n))
    blocks = [
        sp.vstack([lp.A, sp.hstack([inside, auxiliaries])])
        for lp, inside in zip(lps, matrix, strict=True)
    ]
    lengths = np.array([norm(block, axis=1) for block in blocks])
    lengths = 1 / np.where(lengths > 0, lengths, 1.0)  # to rows of length one
    blocks = [sp.diags_array(s) @ block for s, block in zip(lengths, blocks, strict=True)]
    low = lengths * np.concatenate([np.full_like(b, -np.inf), low], axis=1)
    high = lengths * np.concatenate([b, high], axis=1)
    A = sp.block_diag(blocks, format="csr")
    AT = A.T.tocsr()
    gram = np.array([(block.T @ block).toarray() for block in blocks])
    gram += PROXIMITY * np.eye(columns)
    # Unchecked: where a weight is not finite, the first evaluation says so.
    factors = torch.linalg.cholesky_ex(torch.from_numpy(gram)).L
    del gram

    oracle = Oracle(problem)
    points = problem.flat(problem.start, n).copy()
    v = np.concatenate([points[group], np.zeros((len(lps), columns - n))], axis=1)
    q = np.clip((A @ v.ravel()).reshape(low.shape), low, high)
    u = np.zeros_like(q)
    rho = np.maximum(abs(c).max(1, keepdims=True), TINY)
    for _ in range(problem.max_evaluations):
        active = np.flatnonzero(~certificate.done[group])
        certificate.observe(*oracle.evaluate(points[group[active]], group[active]))
        multipliers = (lengths * u)[active, :own]
        _prove(problem, [lps[i] for i in active], group[active], multipliers, certificate)
        if certificate.done[group].all():
            return

        for _ in range(SWEEPS):
            pull = PROXIMITY * v - c / rho + (AT @ (q - u).ravel()).reshape(v.shape)
            solved = torch.cholesky_solve(torch.from_numpy(pull).unsqueeze(-1), factors)
            v = solved.squeeze(-1).numpy()
            image = (A @ v.ravel()).reshape(q.shape)
            relaxed = RELAXATION * image + (1 - RELAXATION) * q + u
            q = np.clip(relaxed, low, high)
            u = relaxed - q
        points[group] = v[:, :n]
        points = problem.project(points)

        violation = abs(image - q).max(1) / (abs(q).max(1) + TINY)
        force = (AT @ u.ravel()).reshape(v.shape)
        stationarity = abs(c / rho + force).max(1) / (abs(c / rho).max(1) + TINY)
        ratio = (violation + TINY) / (stationarity + TINY)
        ratio = np.where((ratio < 1 / UNBALANCED**2) | (ratio > UNBALANCED**2), ratio, 1.0)
        change = np.sqrt(np.clip(ratio, 1e-2, 1e2))[:, None]
        rho, u = rho * change, u / change


def _set_rows(problem: Problem, group: Index) -> tuple[Array, Array, Array]:
    """The set as low ≤ M y ≤ high: its inequalities, its equations and its bounds."""
    over, n = problem.polyhedron, problem.dim
    matrix = np.concatenate([over.A_ub, over.A_eq], axis=1)[group]
    matrix = matrix / np.maximum(over.width[group], TINY)[:, None]
    shift = np.einsum("srn,sn->sr", matrix, over.origin[group])
    lower, upper = (t[group] for t in problem.bounds)
    b, e = over.b_ub[group], over.b_eq[group]
    return (
        np.concatenate([matrix, np.broadcast_to(np.eye(n), (len(group), n, n))], axis=1),
        np.concatenate(
            [np.concatenate([np.full_like(b, -np.inf), e], axis=1) + shift, lower], axis=1
        ),
        np.concatenate([np.concatenate([b, e], axis=1) + shift, upper], axis=1),
    )


def _prove(
    problem: Problem,
    lps: list[LinearProgram],
    rows: Index,
    multipliers: Array,
    certificate: Certificate,
) -> None:
    """Raise bounds by the affine functions that the multipliers stand for."""
    lower, upper = (t[rows] for t in problem.bounds)
    reach = np.maximum(abs(lower), abs(upper))
    offsets, slopes = np.empty(len(rows)), np.empty_like(reach)
    for i, lp in enumerate(lps):
        offsets[i], slopes[i], terms = lp.tangent(multipliers[i])
        terms *= ROUNDING * np.finfo(np.float64).eps
        offsets[i] -= terms[-1] + terms[:-1] @ reach[i]
    certificate.prove(rows, offsets, slopes)


@dataclass(frozen=True)
class LibrarySolver:
    """Minimise a piecewise-linear function exactly by a library, see ``solve_each``."""

    name: str
    solve_one: Callable[[Program], Answer] = field(repr=False)
    linear = True

    def solve(self, problem: Problem) -> Solution:
        """Solve a problem.

        Raises:
            TypeError: f is not piecewise linear.
        """
        return solve_each(problem, self.name, self.solve_one)


def _solve_by_ecos(program: Program) -> Answer:
    """Source: Domahidi, Chu & Boyd, "ECOS: an SOCP solver for embedded systems", ECC 2013."""
    G, h = program.with_bounds_as_rows()
    equations = (sp.csc_matrix(program.E), program.d) if len(program.d) else ()
    try:
        result = ecos.solve(
            program.c, sp.csc_matrix(G), h, {"l": len(h)}, *equations, verbose=False
        )
    except RuntimeError:  # it takes no equation without coefficients
        return "failed"
    match result["info"]["exitFlag"]:
        case 0 | 10:
            mu = result["z"][: len(program.b)]
            return Optimum(result["x"], mu, result["y"])
        case 2:
            return "unbounded"
        case _:
            return "failed"


def _solve_by_clarabel(program: Program) -> Answer:
    """Source: Goulart & Chen, "Clarabel: an interior-point solver for conic programs with quadratic
    objectives", arXiv:2405.12762, 2024.
    """
    G, h = program.with_bounds_as_rows()
    equations, size = len(program.d), len(program.c)
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    solver = clarabel.DefaultSolver(
        sp.csc_matrix((size, size)),
        program.c,
        sp.csc_matrix(sp.vstack([program.E, G])),
        np.concatenate([program.d, h]),
        [clarabel.ZeroConeT(equations), clarabel.NonnegativeConeT(len(h))],
        settings,
    )
    result = solver.solve()
    match str(result.status):
        case "Solved" | "AlmostSolved":
            nu, mu = np.split(np.array(result.z), [equations])
            return Optimum(np.array(result.x), mu[: len(program.b)], nu)
        case "DualInfeasible":
            return "unbounded"
        case _:
            return "failed"


ECOS = LibrarySolver("ecos", _solve_by_ecos)
CLARABEL = LibrarySolver("clarabel", _solve_by_clarabel)
PEER_SOLVERS: dict[str, Solver] = {"admm": ADMM(), "ecos": ECOS, "clarabel": CLARABEL}


def by_name(name: str) -> str | Solver:
    """What ``minimize`` takes for the solver of a name, one of these or one of the package."""
    return PEER_SOLVERS.get(name, name)
