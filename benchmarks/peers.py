"""What one could pick instead of this package for the argmin of a network, written as its users do.

Each takes a batch of functions of the package and a set, and returns an ``Answer``; a solver that
takes one problem at a time is given the first samples only. qpth is not among them: its release
0.0.18 needs numpy 1, and the other peers run beside numpy 2 here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import cvxpy as cp
import numpy as np
import numpy.typing as npt
import torch
from cvxpylayers.torch import CvxpyLayer
from peer_solvers import CLARABEL, ECOS
from torch import Tensor

from icnn_rl import Box, ConvexFunction, ConvexSet, Simplex, minimize, negative_entropy
from icnn_rl.networks.conditioned import ConditionedNetwork
from icnn_rl.solvers import Solver

Array = npt.NDArray[np.float64]

SECONDS = 2.0  # after which a loop over samples ends


@dataclass(frozen=True)
class Answer:
    """What a peer found.

    Attributes:
        y: points for the first samples of the batch, ``(samples, n)``.
        seconds: the time that a sample takes.
        evaluations: how often a sample was evaluated, on average; 0 for linear programs.
    """

    y: Tensor
    seconds: float
    evaluations: float = 0.0

    def excess(self, f: ConvexFunction, minimum: Tensor) -> Tensor:
        """How far f(y) is above the minimum, for every sample."""
        first = torch.arange(len(self.y))
        with torch.no_grad():
            return f.take(first).value(self.y.to(minimum)) - minimum[first]


def in_turn(f: ConvexFunction, one: Callable[[ConvexFunction], Tensor]) -> Answer:
    """One sample after the other, for some seconds; the first is solved once more to warm up."""
    samples = f.batch_shape[-1]
    parts = [f.take(torch.tensor([i])) for i in range(min(samples, 64))]
    one(parts[0])
    found: list[Tensor] = []
    start = time.perf_counter()
    for part in parts:
        found.append(one(part))
        spent = time.perf_counter() - start
        if spent > SECONDS:
            break
    return Answer(torch.cat(found), spent / len(found))


def linear_programs(solver: str | Solver) -> Callable[[ConvexFunction, ConvexSet], Answer]:
    """One linear program a sample, through HiGHS, ECOS or Clarabel, building it included."""
    return lambda f, over: in_turn(f, lambda part: minimize(part, over, solver=solver).y)


def cvxpylayers(f: ConvexFunction, over: ConvexSet) -> Answer:
    """The epigraph of a network as one parametrised problem: gates turn weights into parameters.

        min cᵀy + vᵀz_K    subject to    z₁ ≥ W₀ y + b₀,  zₖ₊₁ ≥ Vₖ zₖ + Wₖ y + bₖ,  z ≥ 0,  y ∈ 𝒴

    Solved by diffcp with Clarabel. Canonicalising the problem, once, is not counted.

    Source: Agrawal et al., "Differentiable convex optimization layers", NeurIPS 2019.
    """
    if not isinstance(f, ConditionedNetwork) or f.gate_z is None or f.gate_y is None:
        raise TypeError(f"f: expected a conditioned PICNN, got {type(f).__name__}")
    n = f.dim
    widths = [b.shape[-1] for b in f.bias]
    y = cp.Variable(n)
    constraints = [y >= 0, cp.sum(y) == 1] if isinstance(over, Simplex) else [y >= -1, y <= 1]
    parameters: list[cp.Parameter] = []
    of_z: cp.Expression = 0
    below = None
    for k, width in enumerate(widths):
        W, b = cp.Parameter((width, n)), cp.Parameter(width)
        parameters += [W, b]
        top = W @ y + b
        if below is not None:
            of_z = cp.Parameter((width, widths[k - 1]))
            parameters.append(of_z)
            top = top + of_z @ below
        if k + 1 < len(widths):
            below = cp.Variable(width, nonneg=True)
            constraints.append(below >= top)
    problem = cp.Problem(cp.Minimize(cp.sum(top)), constraints)
    layer = CvxpyLayer(problem, parameters=parameters, variables=[y])

    def one(part: ConvexFunction) -> Tensor:
        assert isinstance(part, ConditionedNetwork)
        assert part.gate_z is not None
        assert part.gate_y is not None
        values: list[Tensor] = []
        for k, (W, b) in enumerate(zip(part.weight_y, part.bias, strict=True)):
            values += [W[0].mT * part.gate_y[0, :, k, None], b[0]]
            if k > 0:
                values.append(part.weight_z[k - 1][0].mT * part.gate_z[k - 1][0, :, None])
        with torch.no_grad():
            (answer,) = layer(
                *(v.double() for v in values), solver_args={"solve_method": "Clarabel"}
            )
        return answer

    return in_turn(f, one)


def adam(f: ConvexFunction, over: ConvexSet) -> Answer:
    """Up to 1000 projected steps of Adam from 0, the whole batch at once; the best points.

    It ends when the best points no longer move by 1e-3 a step, on a running mean over the batch.

    Source: Amos, Xu & Kolter, "Input Convex Neural Networks", ICML 2017, section 6.3 and the rule
    by which its code ends; gradients are this package's, which are faster than autograd's.
    """
    start = time.perf_counter()
    with torch.no_grad():
        assert f.like is not None
        assert f.dim is not None
        y = over.project(f.like.new_zeros(*f.batch_shape, f.dim))
        first, second = torch.zeros_like(y), torch.zeros_like(y)
        best, best_y = f.like.new_full(f.batch_shape, torch.inf), y
        movement = None
        for step in range(1, 1001):
            value, gradient = f.value_and_gradient(y)
            better = value < best
            moved = torch.where(better.unsqueeze(-1), y, best_y)
            latest = float((moved - best_y).norm(dim=-1).mean())
            movement = latest if movement is None else (movement + latest) / 2
            best, best_y = torch.minimum(best, value), moved
            if step > 6 and movement < 1e-3:
                break
            first = 0.9 * first + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient.square()
            scale = (second / (1 - 0.999**step)).sqrt() + 1e-8
            y = over.project(y - 0.01 * first / (1 - 0.9**step) / scale)
    return Answer(best_y, (time.perf_counter() - start) / len(y), step)


def bundle_entropy(f: ConvexFunction, over: ConvexSet) -> Answer:
    """The bundle entropy method in NumPy, one sample at a time; it minimises f - H(y) instead.

    With cuts f ≥ hᵢ + gᵢᵀp in p = (1 + y)/2 the model's minimiser is p = σ(-Gᵀλ), where λ maximises
    hᵀλ - Σ log(1 + exp(-Gᵀλ)) over the simplex, here by projected Newton steps. Cuts whose λ is
    zero are dropped. It ends at a gap of 1e-4 or after 50 evaluations.

    Source: Amos, Xu & Kolter, "Input Convex Neural Networks", ICML 2017, section 4.2, algorithm 1.
    """
    if not isinstance(over, Box):
        raise TypeError(f"over: expected the box [-1, 1]ⁿ, got {over}")
    entropy = negative_entropy(1.0)
    evaluations: list[int] = []

    def one(part: ConvexFunction) -> Tensor:
        assert part.like is not None
        p = np.full(f.dim or 0, 0.5)
        G, h, weights = np.zeros((0, len(p))), np.zeros(0), np.zeros(0)
        best, best_y = np.inf, part.like
        for evaluation in range(50):
            y = torch.from_numpy(2 * p - 1).to(part.like.dtype).unsqueeze(0)
            with torch.no_grad():
                value, gradient = part.value_and_gradient(y)
                total = float(value + entropy.value(y))
            g = 2 * gradient[0].double().numpy()
            if total < best:
                best, best_y = total, y
            kept = weights > 0
            G, h = np.vstack([G[kept], g]), np.append(h[kept], float(value) - g @ p)
            weights = np.append(weights[kept], 0.0 if kept.any() else 1.0)
            weights, bound = maximize_dual(G, h, weights)
            if best - bound <= 1e-4 or evaluation == 49:
                break
            p = 1 / (1 + np.exp(np.clip(G.T @ weights, -30, 30)))
        evaluations.append(evaluation + 1)
        return best_y

    return replace(in_turn(f, one), evaluations=float(np.mean(evaluations)))


def maximize_dual(G: Array, h: Array, weights: Array) -> tuple[Array, float]:
    """max hᵀλ - Σ log(1 + exp(-Gᵀλ)) over the simplex, from λ; the maximiser and the maximum."""

    def dual(w: Array) -> float:
        return float(h @ w - np.logaddexp(0, -(G.T @ w)).sum())

    value = dual(weights)
    for _ in range(50):
        p = 1 / (1 + np.exp(np.clip(G.T @ weights, -500, 500)))
        slope = h + G @ p
        pivot = int(weights.argmax())  # what the other weights leave over
        reduced = slope - slope[pivot]
        free = (weights > 1e-12) | (reduced > 0)
        free[pivot] = False
        if not free.any() or abs(reduced[free]).max() < 1e-7:
            break
        D = G[free] - G[pivot]
        curvature = (D * (p * (1 - p))) @ D.T + 1e-8 * np.eye(len(D))
        step = np.linalg.solve(curvature, reduced[free])
        share = 1.0
        while share > 1e-8:
            trial = weights.copy()
            trial[free] = np.maximum(weights[free] + share * step, 0.0)
            trial[pivot] = 0.0
            trial[pivot] = 1 - trial.sum()
            if trial[pivot] >= 0 and (reached := dual(trial)) > value:
                break
            share /= 2
        else:
            break
        weights, value = trial, reached
    return weights, value


PEERS: dict[str, Callable[[ConvexFunction, ConvexSet], Answer]] = {
    "HiGHS": linear_programs("lp"),
    "ECOS": linear_programs(ECOS),
    "Clarabel": linear_programs(CLARABEL),
    "cvxpylayers": cvxpylayers,
    "Adam": adam,
    "bundle entropy": bundle_entropy,
}
