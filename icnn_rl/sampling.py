"""Draws from the density exp(-f/T), which is log-concave where f is convex."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from icnn_rl.functions import ConvexFunction
from icnn_rl.sets import CanonicalSet, ConvexSet
from icnn_rl.solvers import minimize
from icnn_rl.solvers.eager import eager
from icnn_rl.solvers.minimize import fitting, require_precision, spread

MAX_EVALUATIONS_PER_CHORD = 100  # then rounding must be at fault, and the point stays


@eager
@torch.no_grad()
def sample(
    f: ConvexFunction,
    over: ConvexSet,
    temperature: float,
    sweeps: int = 4,
    *,
    start: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw a point for each of a batch of convex functions from a Boltzmann density on a set.

        y ~ p(y) ∝ exp(-f(y) / T),      y ∈ 𝒴

    A Markov chain by slice sampling along lines. Each step leaves p invariant; the more sweeps, the
    less the point depends on the start. As f is convex, the points of a line with f ≤ c form an
    interval, and rejection finds a uniform one of them, whatever the scale of f. The n lines of a
    sweep are by turns the axes, best where a box cuts p off, and the axes of a random rotation,
    best where p is narrow and askew.

    Args:
        f: functions with dimension n; their batch shape and that of the set broadcast to ``batch``.
        over: the set 𝒴, bounded and with an interior: a ``Box``, a ``Ball``, the inequalities of
            a ``Polytope``, or an intersection of them.
        temperature: T > 0, in units of f.
        sweeps: steps of the chain, in rounds of n.
        start: where the chain starts, shape ``(*batch, n)``; projected onto 𝒴. The minimum of f,
            to a gap of T, by default.
        generator: of the random numbers, on the device of f; PyTorch's global one by default.

    Returns:
        Points of 𝒴, shape ``(*batch, n)``. For several of one function, repeat it in the batch.

    Raises:
        ValueError: an argument has a wrong value or shape, 𝒴 is empty or unbounded, or f is not
            finite.
        TypeError: 𝒴 has equations, or bounds on a sum of absolute values, or f is in another
            precision than float32 and float64.

    Source: Neal, "Slice sampling", Annals of Statistics 2003, sections 4 and 5; lines of random
    direction: Smith, "Efficient Monte Carlo procedures for generating points uniformly distributed
    over bounded regions", Operations Research 1984.
    """
    f = spread(f, over)
    if f.dim is None or f.like is None:
        raise ValueError("f: expected a function that fixes the dimension, got an entropy alone")
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature: expected a finite number > 0, got {temperature}")
    if sweeps < 1:
        raise ValueError(f"sweeps: expected a number >= 1, got {sweeps}")
    require_precision(f.like)
    shape = (*f.batch_shape, f.dim)
    like = f.like.new_zeros(*(f.batch_shape or (1,)), f.dim)
    if like.numel() == 0:
        return like.view(shape)
    form = over.canonical(like)
    if form.b_eq.shape[-1] or form.has_l1:
        raise TypeError(
            f"over: expected a set of bounds, inequalities and balls, which lines cross; got {over}"
        )
    lower, upper = form.full_bounds
    if not bool((upper - lower).isfinite().all()):
        raise ValueError(f"over: expected a bounded set, got {over}")
    center, empty = over.interior_point(like)
    if bool(empty.any()):
        raise ValueError(f"over: expected a set that is not empty, got {over}")
    if start is None:
        start = minimize(f, over, tol=temperature).y
    start = over.project(fitting(start, like.view(shape)).reshape(like.shape))
    value = f.value(start)
    if not bool(value.isfinite().all()):
        raise ValueError("f: expected finite values, got NaN or infinity where the chain starts")
    chain = _Chain(f, form, temperature, generator, start, value)
    # The start may be a corner, which most lines only touch, so the first one goes inward.
    inward = center - start
    chain.move(torch.where((inward == 0).all(-1, keepdim=True), 1.0, inward))
    for direction in _directions(like, sweeps, generator):
        chain.move(direction)
    return over.project(chain.y).view(shape)


def _directions(like: Tensor, sweeps: int, generator: torch.Generator | None) -> Iterator[Tensor]:
    """The axes, then those of a random rotation for each sample, and so on by turns."""
    n = like.shape[-1]
    for sweep in range(sweeps):
        if sweep % 2 == 0 or n == 1:
            axes = torch.eye(n, dtype=like.dtype, device=like.device).expand(*like.shape, n)
        else:
            normal = like.new_empty(*like.shape, n).normal_(generator=generator)
            axes = torch.linalg.qr(normal).Q
        yield from axes.unbind(-1)


def _chord(over: CanonicalSet, y: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the largest t with y + t direction in the set, each of shape ``batch``."""
    lower, upper = over.full_bounds
    y, direction = y.double(), direction.double()
    used, added = ((over.A_ub @ v.unsqueeze(-1)).squeeze(-1) for v in (y, direction))
    slack = torch.cat([upper - y, y - lower, over.b_ub - used], -1)
    rate = torch.cat([direction, -direction, added], -1)
    t = slack.clamp_(min=0) / rate
    low = t.masked_fill(rate >= 0, -torch.inf).amax(-1)
    high = t.masked_fill(rate <= 0, torch.inf).amin(-1)
    for radius, center in over.balls:
        # ‖y - center + t direction‖ = radius
        out, a = y - center, direction.square().sum(-1)
        b = (out * direction).sum(-1) / a
        c = (radius.square() - out.square().sum(-1)).clamp(min=0) / a
        root = (b.square() + c).sqrt()
        low, high = low.maximum(-b - root), high.minimum(root - b)
    return low, high


@dataclass
class _Chain:
    """Points y of a batch with their values, and a step that leaves exp(-f/T) invariant."""

    f: ConvexFunction
    over: CanonicalSet
    temperature: float
    generator: torch.Generator | None
    y: Tensor
    value: Tensor

    def __post_init__(self) -> None:
        # Up to 1024 points, an evaluation of small networks takes no longer than for one.
        self.tries = max(2, min(32, 1024 // self.value.numel()))
        samples = torch.arange(self.y.shape[-2], device=self.y.device)
        self.f = self.f.take(samples.repeat(self.tries))

    def move(self, direction: Tensor) -> None:
        """Move each point to a uniform one of those on its line whose value is below a level.

        The level is the value and T times an exponential variable. As f is convex, a point above
        the level cuts off the chord on its side.
        """
        old = self.value.unsqueeze(-2)
        exponential = torch.empty_like(old).exponential_(generator=self.generator)
        level = old + self.temperature * exponential
        chord = _chord(self.over, self.y, direction)
        low, high = (t.to(self.y.dtype).unsqueeze(-2) for t in chord)
        moved, value, found = torch.zeros_like(old), old, torch.zeros_like(old, dtype=torch.bool)
        for _ in range(MAX_EVALUATIONS_PER_CHORD):
            t, values = self._try(low, high, direction)
            below = values <= level
            first = below.byte().argmax(-2, keepdim=True)
            new = below.any(-2, keepdim=True) & ~found
            moved = torch.where(new, t.gather(-2, first), moved)
            value = torch.where(new, values.gather(-2, first), value)
            found = found | new
            if bool(found.all()):
                break
            before, after = ~below & (t < 0), ~below & (t > 0)
            low = low.maximum(t.masked_fill(~before, -torch.inf).amax(-2, keepdim=True))
            high = high.minimum(t.masked_fill(~after, torch.inf).amin(-2, keepdim=True))
        self.y = self.y + moved.squeeze(-2).unsqueeze(-1) * direction
        self.value = value.squeeze(-2)

    def _try(self, low: Tensor, high: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        """Uniform t, shape ``(*batch[:-1], tries, batch[-1])``, and the values there."""
        *ensemble, _, size = low.shape
        t = low.new_empty(*ensemble, self.tries, size).uniform_(generator=self.generator)
        t = low + (high - low) * t
        points = self.y.unsqueeze(-3) + t.unsqueeze(-1) * direction.unsqueeze(-3)
        return t, self.f.value(points.flatten(-3, -2)).view_as(t)
