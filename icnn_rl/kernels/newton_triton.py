"""Projected Newton on a box as one launch of a GPU: a group of threads solves a sample alone."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from icnn_rl.kernels import ACTIVATIONS, DECREASE, LENGTHS

_SQUAREPLUS, _SOFTPLUS = (tl.constexpr(ACTIVATIONS.index(s)) for s in ("squareplus", "softplus"))
_LENGTHS, _DECREASE = tl.constexpr(LENGTHS), tl.constexpr(DECREASE)
WARPS = 4  # a sample
MAX_MATRIX_ENTRIES = 4096  # that four warps can hold


def fits(dim: int, width: int) -> bool:
    """Whether a sample of so many dimensions and units can be solved by few threads."""
    n: int = triton.next_power_of_2(dim)
    return bool(n * max(n, triton.next_power_of_2(width)) <= MAX_MATRIX_ENTRIES)


def minimize(
    network: tuple[Tensor, ...],
    activation: str,
    gamma: Tensor,
    center: Tensor,
    lower: Tensor,
    upper: Tensor,
    start: Tensor,
    *,
    tol: float,
    max_evaluations: int,
    ridge: float,
    rounding: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Minimise the mean of networks with one hidden layer, each sample until its gap is ``tol``.

    Args:
        network: weights of y and of the output, ``(members, n, width)``, ``(members, n, 1)`` and
            ``(members, width, 1)``; gates of y and z and biases of both layers, each
            ``(members, batch, …)``.
        activation: squareplus, softplus or elu.
        gamma, center: the quadratic term of each sample, ``(batch,)`` and ``(batch, n)``.
        lower, upper, start: the box and the first points, ``(batch, n)``.
        tol, max_evaluations: when a sample is done, and given up.
        ridge: added to the Hessian's diagonal, relative to its sum.
        rounding: relative error of values.

    Returns:
        The best points; in float64, their values and lower bounds of the minima; evaluations.
    """
    batch, n = start.shape
    members, _, width = network[0].shape
    network = tuple(
        t if k < 3 else t.expand(members, batch, *t.shape[2:]) for k, t in enumerate(network)
    )
    y = torch.empty_like(start)
    value, bound = start.new_empty(2, batch, dtype=torch.float64)
    evaluations = start.new_empty(batch, dtype=torch.int64)
    with torch.cuda.device_of(start):
        _newton[(batch,)](
            *(t.contiguous() for t in (*network, gamma, center, lower, upper, start)),
            *(y, value, bound, evaluations),
            *(tol, max_evaluations, ridge, rounding, batch, width, n, members),
            ACTIVATIONS.index(activation),
            triton.next_power_of_2(n),
            triton.next_power_of_2(width),
            num_warps=WARPS,
        )
    return y, value, bound, evaluations


@triton.jit
def _newton(  # type: ignore[no-untyped-def]
    weight_y, output_y, output_z, gate_y, gate_z, bias, level,
    gamma, center, lower, upper, start, y_out, value_out, bound_out, evaluations_out,
    tol: tl.float64, max_evaluations, ridge: tl.float64, rounding: tl.float64, batch, width,
    n: tl.constexpr, MEMBERS: tl.constexpr, ACTIVATION: tl.constexpr,
    N: tl.constexpr, M: tl.constexpr,
):  # fmt: skip
    """A sample. Entries beyond n are those of a box without width: they stay 0 and add nothing."""
    row = tl.program_id(0).to(tl.int64)
    i, j = tl.arange(0, N), tl.arange(0, M)
    low = tl.load(lower + row * n + i, mask=i < n, other=0)
    high = tl.load(upper + row * n + i, mask=i < n, other=0)
    point = tl.load(start + row * n + i, mask=i < n, other=0)
    curved = tl.load(gamma + row).to(tl.float64)
    middle = tl.load(center + row * n + i, mask=i < n, other=0).to(tl.float64)
    floor, ceiling = low.to(tl.float64), high.to(tl.float64)
    unit = tl.where(ceiling > floor, ceiling - floor, 1)
    best_point = point
    base, step = point.to(tl.float64), tl.zeros((N,), tl.float64)
    best = tl.full((), float("inf"), tl.float64)
    bound, promised, share = -best, tl.zeros((), tl.float64), tl.full((), 1, tl.float64)
    evaluation = 0
    while (evaluation < max_evaluations) & (best - bound > tol):
        evaluation += 1
        f = tl.zeros((), point.dtype)
        gradient = tl.zeros((N,), point.dtype)
        hessian = tl.zeros((N, N), point.dtype)
        for e in range(MEMBERS):
            at = e * batch + row
            gate = tl.load(gate_y + 2 * at * n + i, mask=i < n, other=0)
            A = tl.load(
                weight_y + (e * n + i[:, None]) * width + j,
                mask=(i[:, None] < n) & (j < width),
                other=0,
            )
            A *= gate[:, None]
            t = tl.load(bias + at * width + j, mask=j < width, other=0)
            z, slope, curvature = _activate(t + tl.sum(A * point[:, None], 0), ACTIVATION)
            w = tl.load(output_z + e * width + j, mask=j < width, other=0)
            w *= tl.load(gate_z + at * width + j, mask=j < width, other=0)
            own = tl.load(output_y + e * n + i, mask=i < n, other=0)
            own *= tl.load(gate_y + (2 * at + 1) * n + i, mask=i < n, other=0)
            f += tl.load(level + at) + tl.sum(own * point, 0) + tl.sum(w * z, 0)
            gradient += own + tl.sum(A * (w * slope), 1)
            A_curved = A * (w * curvature)
            for k in range(n):
                a = tl.load(weight_y + (e * n + k) * width + j, mask=j < width, other=0)
                a *= tl.load(gate_y + 2 * at * n + k)
                hessian += tl.where(i == k, tl.sum(A_curved * a, 1)[:, None], 0)
        y = point.to(tl.float64)
        g = gradient.to(tl.float64) / MEMBERS + curved * (y - middle)
        value = f.to(tl.float64) / MEMBERS + curved / 2 * tl.sum((y - middle) * (y - middle), 0)
        size = tl.abs(value) + tl.sum(tl.abs(g) * (tl.abs(y) + ceiling - floor), 0)
        noise = rounding * size
        left, right = floor - y, ceiling - y
        inner = tl.minimum(tl.maximum(-g / tl.where(curved > 0, curved, 1), left), right)
        least = tl.where(curved > 0, inner, tl.where(g > 0, left, right))
        bound = tl.maximum(bound, value - noise + tl.sum((g + curved / 2 * least) * least, 0))
        accepted = value <= best - _DECREASE * share * promised + noise
        # Selected, not branched on: Triton (3.6, 3.9) loses what a branch assigns to a name that
        # is another's alias when the loop begins, as best_point is.
        best_point = tl.where(value < best, point, best_point)
        best = tl.minimum(best, value)
        # In units of the width, where one ridge suits all sides of an uneven box.
        H = hessian.to(tl.float64) / MEMBERS
        H += tl.where((i[:, None] == i) & (i < n), curved, 0)
        H *= unit[:, None] * unit
        d, decrease = _model_step(H, g * unit, left / unit, right / unit, ridge, n, N)
        base = tl.where(accepted, y, base)
        step = tl.where(accepted, d * unit, step)
        promised = tl.where(accepted, decrease, promised)
        share = tl.where(accepted, 1, share / 2)
        moved = (base + share * step).to(point.dtype)
        point = tl.minimum(tl.maximum(moved, low), high)
    tl.store(y_out + row * n + i, best_point, mask=i < n)
    tl.store(value_out + row, best)
    tl.store(bound_out + row, bound)
    tl.store(evaluations_out + row, evaluation)


@triton.jit
def _activate(t, ACTIVATION: tl.constexpr):  # type: ignore[no-untyped-def]
    """σ(t), σ'(t) and σ''(t), as in ``networks.activations``."""
    if ACTIVATION == _SQUAREPLUS:
        root = tl.sqrt(t * t + 1)
        part = 0.5 / (root + tl.abs(t))
        z = tl.maximum(t, 0) + part
        slope = tl.where(t > 0, 1 - part / root, part / root)
        curvature = 0.5 / (root * root * root)
    elif ACTIVATION == _SOFTPLUS:
        small = tl.exp(-tl.abs(t))
        whole = 1 + small
        # log1p: the rounding of 1 + small is divided out.
        rest = tl.where(whole > 1, tl.log(whole) * small / (whole - 1), small)
        z = tl.maximum(t, 0) + rest
        slope = tl.where(t > 0, 1 / whole, small / whole)
        curvature = small / (whole * whole)
    else:
        slope = tl.exp(tl.minimum(t, 0))
        z = tl.maximum(t, 0) + slope - 1
        curvature = tl.where(t > 0, 0, slope)
    return z, slope, curvature


@triton.jit
def _model_step(H, g, low, high, ridge, n: tl.constexpr, N: tl.constexpr):  # type: ignore[no-untyped-def]
    """Minimise gᵀd + dᵀHd/2 over a box as ``newton_on_device.model_step`` does."""
    i = tl.arange(0, N)
    diagonal = tl.sum(tl.where(i[:, None] == i, H, 0), 1)
    added = tl.sum(diagonal, 0) * ridge + 1e-12
    r, d = g, tl.zeros_like(g)
    for k in range(n):
        move = -_entry(r, k, N) / (_entry(diagonal, k, N) + added)
        move = tl.minimum(tl.maximum(move, _entry(low, k, N)), _entry(high, k, N))
        d = tl.where(i == k, move, d)
        r += tl.sum(tl.where(i == k, H, 0), 1) * move
    held = ((d <= low) & (r >= 0)) | ((d >= high) & (r <= 0))
    left = tl.where(held[:, None] | held, 0, H)
    left += tl.where(i[:, None] == i, tl.where(held, 1, added), 0)
    p = tl.where(held, 0, -r)
    for k in range(n):  # Gauss-Jordan elimination
        row = tl.sum(tl.where(i[:, None] == k, left, 0), 0)
        pivot = _entry(row, k, N)
        column = tl.sum(tl.where(i == k, left, 0), 1) - tl.where(i == k, 1, 0)
        p -= column * (_entry(p, k, N) / pivot)
        left -= column[:, None] * (row / pivot)
    least, best = tl.zeros((), tl.float64), d
    for _ in range(_LENGTHS):
        trial = tl.minimum(tl.maximum(d + p, low), high)
        change = tl.sum((trial - d) * (r + tl.sum(H * (trial - d), 1) / 2), 0)
        best = tl.where(change < least, trial, best)
        least = tl.minimum(least, change)
        p /= 4
    return best, -tl.sum((2 * g + tl.sum(H * best, 1)) * best, 0) / 2


@triton.jit
def _entry(vector, k, N: tl.constexpr):  # type: ignore[no-untyped-def]
    """Entry k."""
    return tl.sum(tl.where(tl.arange(0, N) == k, vector, 0), 0)
