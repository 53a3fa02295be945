"""The best action within a set that the user chooses when acting, in the environment's units."""

from __future__ import annotations

import torch
from torch import Tensor

from icnn_rl import Box, ConvexFunction
from icnn_rl.agents.solver import SolverSettings
from icnn_rl.sets import ConvexSet


def minimize_within(
    f: ConvexFunction, action_set: ConvexSet, low: Tensor, high: Tensor, solver: SolverSettings
) -> Tensor:
    """Minimise functions of scaled actions over a set in the environment's units.

        argmin { f(S u + t) : u ∈ action_set, low ≤ u ≤ high },
        S u + t = 2 (u - low) / (high - low) - 1

    Args:
        f: functions of actions scaled to [-1, 1]ⁿ, of batch shape (B,).
        action_set: any set, of which the part inside the action space counts; in the
            environment's units.
        low: lower bounds of the action space, shape (n,).
        high: upper bounds, likewise.
        solver: how precisely to solve.

    Returns:
        Actions in the environment's units, shape (B, n).

    Raises:
        ValueError: the set has the wrong dimension or misses the action space.
    """
    batch = low.new_zeros(*f.batch_shape, len(low))
    scale, shift = 2 / (high - low), -(high + low) / (high - low)
    if isinstance(action_set, Box):
        lower, upper = _intersection(action_set, low, high, batch)
        scaled = solver.minimize(f, Box(lower * scale + shift, upper * scale + shift)).y
        return ((scaled - shift) / scale).clamp(lower, upper)
    within = action_set & Box(low, high)
    try:
        solution = solver.minimize(f.affine(torch.diag(scale), shift), within)
    except ValueError as error:
        raise ValueError(
            f"action_set: expected a set in {len(low)} dimensions, as the action space; got "
            f"{action_set} ({error})"
        ) from error
    if bool(solution.infeasible.any()):
        raise ValueError(_missed(str(action_set), low, high))
    return solution.y


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
        raise ValueError(_missed(f"bounds {box.lower} and {box.upper}", low, high))
    return lower, upper


def _missed(got: str, low: Tensor, high: Tensor) -> str:
    return (
        f"action_set: expected a set that meets the action space, from {low.tolist()} to "
        f"{high.tolist()}; got {got}"
    )
