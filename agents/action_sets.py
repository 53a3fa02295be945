"""The best action within a set that the user chooses when acting, in the environment's units."""

from __future__ import annotations

import torch
from torch import Tensor

from icnn_rl import Box, ConvexFunction
from icnn_rl.agents.solver import SolverSettings
from icnn_rl.sets import ConvexSet

ROUNDING = 1e-6  # relative to the width of the action space


def minimize_within(
    f: ConvexFunction, action_set: ConvexSet, low: Tensor, high: Tensor, solver: SolverSettings
) -> Tensor:
    """Minimise functions of scaled actions over a set in the environment's units.

        argmin { f(S u + t) : u ∈ action_set },      S u + t = 2 (u - low) / (high - low) - 1

    Args:
        f: functions of actions scaled to [-1, 1]ⁿ, of batch shape (B,).
        action_set: a box, of which the part inside the action space counts, or another set, which
            has to lie inside it; in the environment's units.
        low: lower bounds of the action space, shape (n,).
        high: upper bounds, likewise.
        solver: how precisely to solve.

    Returns:
        Actions in the environment's units, shape (B, n).

    Raises:
        ValueError: the set has the wrong dimension, misses the action space, or leaves it.
    """
    batch = low.new_zeros(*f.batch_shape, len(low))
    scale, shift = 2 / (high - low), -(high + low) / (high - low)
    if isinstance(action_set, Box):
        lower, upper = _intersection(action_set, low, high, batch)
        scaled = solver.minimize(f, Box(lower * scale + shift, upper * scale + shift)).y
        return ((scaled - shift) / scale).clamp(lower, upper)
    _require_inside(action_set, low, high, batch)
    return solver.minimize(f.affine(torch.diag(scale), shift), action_set).y


def _intersection(box: Box, low: Tensor, high: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
    n = batch.shape[-1]
    for bound in (box.lower, box.upper):
        shape = torch.as_tensor(bound).shape
        if shape and shape[-1] != n:
            raise ValueError(
                f"action_set: expected a box in {n} dimensions, as the action space; got bounds "
                f"of shape {tuple(shape)}"
            )
    lower, upper = box.bounds(batch)
    lower, upper = torch.maximum(lower, low), torch.minimum(upper, high)
    if bool((lower > upper).any()):
        raise ValueError(
            f"action_set: expected a box that meets the action space, from {low.tolist()} to "
            f"{high.tolist()}; got bounds {box.lower} and {box.upper}"
        )
    return lower, upper


def _require_inside(action_set: ConvexSet, low: Tensor, high: Tensor, batch: Tensor) -> None:
    n = batch.shape[-1]
    axes = torch.eye(n, dtype=batch.dtype, device=batch.device).unsqueeze(1) + batch
    try:
        highest, lowest = action_set.support(axes), -action_set.support(-axes)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"action_set: expected a set in {n} dimensions, as the action space; got {action_set}"
        ) from error
    slack = ROUNDING * (high - low).unsqueeze(-1)
    outside = (highest > high.unsqueeze(-1) + slack) | (lowest < low.unsqueeze(-1) - slack)
    if bool(outside.any()):
        i = int(outside.any(-1).nonzero()[0])
        raise ValueError(
            f"action_set: expected a set inside the action space; {action_set} goes from "
            f"{lowest[i].min():g} to {highest[i].max():g} along coordinate {i}, where the action "
            f"space has [{low[i]:g}, {high[i]:g}]"
        )
