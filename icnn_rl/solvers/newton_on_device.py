"""Projected Newton on a box where f lives: no number travels from the device to the host."""

from __future__ import annotations

import os
import shutil
import sysconfig
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from icnn_rl.functions import ConvexFunction, Mean, without_quadratic
from icnn_rl.kernels import DECREASE, LENGTHS, RIDGE, ROUNDING
from icnn_rl.networks.conditioned import ConditionedNetwork
from icnn_rl.sets import Box
from icnn_rl.solvers.problem import NonFiniteError, Problem, capturing, to_array
from icnn_rl.solvers.solution import Solution, rounded_down

MAX_EVALUATIONS = 16  # at most in tensors, where no sample can stop early

Found = tuple[Tensor, Tensor, Tensor, Tensor]
"""The best points; in float64, their values and lower bounds of the minima; evaluations."""


@dataclass(frozen=True)
class NewtonOnDevice:
    """Minimise a smooth convex function over a box by Newton steps, the whole batch at once.

    The method of ``Newton``, except that it minimises the quadratic model in one round, and that
    all of it may be part of a CUDA graph, which gives the same. On a GPU, the networks that
    ``has_kernel`` are one launch, and every sample ends when its gap is small enough. All else is
    done in tensors, and every decision is a mask: each call makes ``max_evaluations``, or
    ``MAX_EVALUATIONS`` if that is less. Only that f is finite cannot be seen while a graph is
    captured:
    then the gap is not finite either.

    Source: Bertsekas, "Projected Newton methods for optimization problems with simple
    constraints", SIAM Journal on Control and Optimization 20, 1982.
    """

    def solve(self, problem: Problem) -> Solution:
        """Solve a problem.

        Raises:
            TypeError: f is not smooth, or the set is not a Box.
            NonFiniteError: a value or a gradient of f is not finite.
        """
        if not problem.f.smooth:
            raise TypeError("solver: 'newton_on_device' needs a smooth function; use 'bundle'")
        if not isinstance(problem.over, Box):
            raise TypeError(
                f"over: 'newton_on_device' needs a Box, got {problem.over}; use 'newton'"
            )
        solve = in_kernel if has_kernel(problem.f) else in_tensors
        y, value, bound, evaluations = solve(problem)
        if not capturing(y):
            _require_finite(problem, y, value - bound)
        none = torch.zeros_like(value, dtype=torch.bool)
        return Solution(
            y=y,
            value=value.to(y.dtype),
            lower_bound=rounded_down(torch.minimum(bound, value), y.dtype),
            converged=value - bound <= problem.tol,
            evaluations=evaluations,
            infeasible=none,
            unbounded=none,
        )


def has_kernel(f: ConvexFunction) -> bool:
    """Whether f is on a GPU, and solved there by one launch."""
    return f.like is not None and f.like.is_cuda and _can_compile() and fits_kernel(f)


def fits_kernel(f: ConvexFunction) -> bool:
    """Whether f is what the kernel is written for.

    That is a smooth conditioned network with gates and one narrow hidden layer, or the mean over
    an ensemble of such networks, with a quadratic added or without.
    """
    g, _ = without_quadratic(f)
    network = g.f if isinstance(g, Mean) else g
    if not isinstance(network, ConditionedNetwork) or network.gate_y is None:
        return False
    from icnn_rl.kernels import newton_triton  # Triton is slow to load, and made for Linux alone

    return (
        network.ensemble == isinstance(g, Mean)
        and g.batch_shape == f.batch_shape
        and len(network.bias) == 2
        and f.smooth
        and newton_triton.fits(network.dim, network.bias[0].shape[-1])
    )


def in_kernel(problem: Problem) -> Found:
    """The iterations as one launch, of a function that ``fits_kernel``."""
    from icnn_rl.kernels import newton_triton

    g, term = without_quadratic(problem.f)
    network = g.f if isinstance(g, Mean) else g
    assert isinstance(network, ConditionedNetwork)
    assert network.gate_y is not None
    assert network.gate_z is not None
    n, shape = problem.dim, problem.batch_shape
    start = problem.start.reshape(-1, n)
    gamma, center = start.new_zeros(()), start.new_zeros(n)
    if term is not None:
        gamma = torch.as_tensor(term.gamma, dtype=start.dtype, device=start.device)
        center = term.center.to(start)
    lower, upper = problem.over.bounds(problem.start)
    y, *found = newton_triton.minimize(
        (*network.weight_y, *network.weight_z, network.gate_y, *network.gate_z, *network.bias),
        network.activation.name,
        gamma.expand(shape).reshape(-1),
        center.expand_as(problem.start).reshape(-1, n),
        lower.expand_as(problem.start).reshape(-1, n),
        upper.expand_as(problem.start).reshape(-1, n),
        start,
        tol=problem.tol,
        max_evaluations=problem.max_evaluations,
        ridge=max(RIDGE / n, ROUNDING * problem.epsilon),
        rounding=ROUNDING * problem.epsilon,
    )
    value, bound, evaluations = (t.view(shape) for t in found)
    return y.view_as(problem.start), value, bound, evaluations


@cache
def _can_compile() -> bool:
    """Whether Triton is installed, and what it needs: a C compiler and Python's headers."""
    compilers = (os.environ.get("CC", "cc"), "gcc", "clang")
    folders = (sysconfig.get_paths()["include"], sysconfig.get_config_var("INCLUDEPY"))
    headers = any(Path(folder, "Python.h").is_file() for folder in folders if folder)
    return find_spec("triton") is not None and headers and any(map(shutil.which, compilers))


def in_tensors(problem: Problem) -> Found:
    """The iterations in tensors, of any smooth function."""
    assert isinstance(problem.over, Box)
    evaluations = min(problem.max_evaluations, MAX_EVALUATIONS)
    f, start = problem.f, problem.start
    bounds = problem.over.bounds(start)
    lower, upper = (b.double() for b in bounds)
    width = upper - lower
    y = base = best_y = start.double()
    best = torch.full_like(y[..., 0], torch.inf)
    bound, share, promised, step = -best, torch.ones_like(best), best, torch.zeros_like(y)
    for evaluation in range(1, evaluations + 1):
        rounded = y.to(start.dtype).clamp(*bounds)
        y = rounded.double()
        value, gradient = (t.double() for t in f.value_and_gradient(rounded))
        size = value.abs() + (gradient.abs() * (y.abs() + width)).sum(-1)
        noise = ROUNDING * problem.epsilon * size
        proved = value - noise + tangent_minimum(gradient, lower - y, upper - y, f.strong_convexity)
        bound = torch.fmax(bound, proved)
        enough = best - DECREASE * share * promised if evaluation > 1 else best
        accepted = value <= enough + noise
        better = value < best
        best = torch.where(better, value, best)
        best_y = torch.where(better.unsqueeze(-1), y, best_y)
        if evaluation == evaluations:
            break
        # In units of the width, where one ridge suits all sides of an uneven box.
        unit = width.clamp(min=1e-300)
        H = f.hessian(rounded).double() * width.unsqueeze(-1) * width.unsqueeze(-2)
        limits = (lower - y) / unit, (upper - y) / unit
        d, decrease = model_step(H, gradient * width, *limits, problem.epsilon)
        taken = accepted.unsqueeze(-1)
        base = torch.where(taken, y, base)
        step = torch.where(taken, d * width, step)
        promised = torch.where(accepted, decrease, promised)
        share = (share / 2).masked_fill(accepted, 1.0)
        y = base + share.unsqueeze(-1) * step
    count = torch.full_like(best, evaluations, dtype=torch.int64)
    return best_y.to(start.dtype), best, bound, count


def _require_finite(problem: Problem, y: Tensor, gap: Tensor) -> None:
    """Refuse functions that are not finite at the best point, so that nothing was proved."""
    finite = gap.isfinite().flatten()
    if not bool(finite.all()):
        row = int((~finite).nonzero()[0])
        value, gradient = (to_array(t) for t in problem.f.value_and_gradient(y))
        raise NonFiniteError.at(row, value.flat[row], gradient.reshape(-1, problem.dim)[row])


def tangent_minimum(g: Tensor, low: Tensor, high: Tensor, gamma: Tensor | float) -> Tensor:
    """min gᵀd + γ/2 ‖d‖² over low ≤ d ≤ high, for γ ≥ 0."""
    corner = torch.where(g > 0, low, high)
    if not isinstance(gamma, Tensor):
        d = (-g / gamma).clamp(low, high) if gamma > 0 else corner
        return ((g + gamma / 2 * d) * d).sum(-1)
    gamma = gamma.double().unsqueeze(-1)
    d = torch.where(gamma > 0, (-g / gamma).clamp(low, high), corner)
    return ((g + gamma / 2 * d) * d).sum(-1)


def model_step(
    H: Tensor, g: Tensor, low: Tensor, high: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Minimise gᵀd + dᵀHd/2 over low ≤ d ≤ high, from d = 0, nearly.

    A sweep minimises over each coordinate in turn. Then a Newton step follows in the coordinates
    that the gradient does not hold at a bound, bent along the box: the best of a few lengths of it.
    Neither can raise the model. The active bounds may still be wrong; a new evaluation of f
    corrects more than a second round in this model.

    Returns:
        d, and the decrease of the model, ≥ 0.
    """
    n = g.shape[-1]
    # Rounding may leave a singular H indefinite, so the ridge is at least as large.
    diagonal = H.diagonal(dim1=-2, dim2=-1)
    ridge = diagonal.sum(-1, keepdim=True) * max(RIDGE / n, ROUNDING * epsilon) + 1e-12
    columns, falls = H.unbind(-1), (-diagonal - ridge).unbind(-1)
    bounds = zip(low.unbind(-1), high.unbind(-1), strict=True)
    r, swept = g, []
    for i, (floor, ceiling) in enumerate(bounds):
        swept.append((r[..., i] / falls[i]).clamp(floor, ceiling))
        r = torch.addcmul(r, columns[i], swept[i].unsqueeze(-1))
    d = torch.stack(swept, -1)
    held = ((d <= low) & (r >= 0)) | ((d >= high) & (r <= 0))
    block = H.masked_fill(held.unsqueeze(-1) | held.unsqueeze(-2), 0.0)
    added = torch.diag_embed(ridge.expand_as(d).masked_fill(held, 1.0))
    p = eliminate(block + added, -r.masked_fill(held, 0.0))
    lengths = torch.arange(0, -2 * LENGTHS, -2, dtype=g.dtype, device=g.device).exp2()
    trial = torch.addcmul(d.unsqueeze(-1), p.unsqueeze(-1), lengths)
    trial = trial.clamp(low.unsqueeze(-1), high.unsqueeze(-1))
    move = trial - d.unsqueeze(-1)
    change, length = (move * (r.unsqueeze(-1) + H @ move / 2)).sum(-2).min(-1)
    length = length[..., None, None].expand(*d.shape, 1)
    better = (change < 0).unsqueeze(-1)  # not where rounding has spoilt the Newton step
    d = torch.where(better, trial.gather(-1, length).squeeze(-1), d)
    return d, -((g + g + (H @ d.unsqueeze(-1)).squeeze(-1)) * d).sum(-1) / 2


def eliminate(A: Tensor, b: Tensor) -> Tensor:
    """The solution of A x = b for positive definite A, by Gauss-Jordan elimination.

    As long as n is small that is few operations, and unlike the libraries' solvers they may be
    part of a CUDA graph (cuSOLVER promises nothing there).
    """
    left = torch.cat([A, b.unsqueeze(-1)], -1)
    eye = torch.eye(b.shape[-1], dtype=b.dtype, device=b.device)
    for k in range(b.shape[-1]):
        row = left[..., k, :] / left[..., k, k, None]
        column = left[..., :, k] - eye[k]
        left = torch.addcmul(left, column.unsqueeze(-1), row.unsqueeze(-2), value=-1.0)
    return left[..., -1]
