"""The best action within a set in the environment's units, which it announces or the user gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import (
    VecEnv,
    VecEnvWrapper,
    VecNormalize,
    VecTransposeImage,
)
from torch import Tensor

from icnn_rl import Box, ConvexFunction, Solution
from icnn_rl.agents.solver import SolverSettings
from icnn_rl.agents.validation import require_set
from icnn_rl.envs.constraints import ActionSet, Both, announced, same_spaces
from icnn_rl.sets import ConvexSet
from icnn_rl.solvers import NonFiniteError


def announced_set(env: VecEnv) -> ActionSet | None:
    """The attribute ``action_set`` of the environments, found through their wrappers, if any.

    Observations reach it without what a VecNormalize did to them, and images channels first.

    Raises:
        ValueError: they do not all announce the same, or wrappers around whatever announces it
            change actions or observations. In environments of other processes those are not found.
    """
    announcing = env.env_method("has_wrapper_attr", "action_set")
    if not any(announcing):
        return None
    if not all(announcing):
        raise ValueError(
            f"env: expected an action_set in all environments or in none, got one in "
            f"{sum(announcing)} of {len(announcing)}"
        )
    try:
        first, *others = env.get_attr("action_set")
    except (EOFError, OSError) as error:
        raise ValueError(
            "env: expected an action_set that other processes can send, an object of a module that "
            "they import; got one that they cannot pickle"
        ) from error
    if not callable(first):
        raise ValueError(
            f"env: expected an action_set that is a function of a batch of observations; got "
            f"{first}"
        )
    if any(_meaning(other) != _meaning(first) for other in others):
        raise ValueError(f"env: expected one action_set in all environments, got {first}, {others}")
    for each in getattr(env.unwrapped, "envs", []):
        announced(each)
    while isinstance(env, VecEnvWrapper):
        looked_through = isinstance(env, (VecNormalize, VecTransposeImage))
        if not looked_through and not same_spaces(env, env.venv):
            raise ValueError(
                f"env: expected the environments' own observations, as they announce an action_set;"
                f" got those of {type(env).__name__}; change them inside the environments, and "
                f"limit the actions outside of that"
            )
        env = env.venv
    action_set: ActionSet = first
    return action_set


def unknown_set(observations: Tensor) -> ConvexSet:
    """What is allowed where a method of an environment would say it, which is not there.

    Raises:
        ValueError: always.
    """
    raise ValueError(
        "env: expected the environment, whose method action_set says which actions it allows; got "
        "none; load the model with env=..."
    )


def is_method(action_set: ActionSet | None) -> bool:
    """Whether it belongs to an environment, and would take it along into a saved model."""
    if isinstance(action_set, Both):
        return is_method(action_set.first) or is_method(action_set.second)
    return hasattr(action_set, "__self__")


def _meaning(action_set: ActionSet) -> object:
    """What two sets share that are the same function: a method is, whichever object's it is."""
    if isinstance(action_set, Both):
        return _meaning(action_set.first), _meaning(action_set.second)
    return getattr(action_set, "__func__", action_set)


def allowed(action_set: ActionSet, observations: Any) -> ConvexSet:
    """The set after a batch of observations.

    Raises:
        ValueError: what the environment announces returns no ConvexSet.
    """
    found = action_set(observations)
    require_set(found)
    return found


def unnormalized(observations: Any, normalizer: VecNormalize | None) -> Any:
    """The environments' own observations, of those that a normaliser returned, if there is one."""
    if normalizer is None:
        return observations
    if isinstance(observations, dict):
        arrays: Any = {key: t.cpu().numpy() for key, t in observations.items()}
        device = next(iter(observations.values())).device
    else:
        arrays, device = observations.cpu().numpy(), observations.device
    return obs_as_tensor(normalizer.unnormalize_obs(arrays), device)


def scaled(actions: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Actions between bounds, scaled to [-1, 1]."""
    return 2 * (actions - low) / (high - low) - 1


def project_onto(action_set: ConvexSet, actions: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The nearest actions in a set and the action space, Euclidean, in the environment's units."""
    exact = actions.double()
    nearest = _inside(action_set, low.double(), high.double(), exact).project(exact)
    return nearest.to(actions.dtype)


def _inside(action_set: ConvexSet, low: Tensor, high: Tensor, like: Tensor) -> ConvexSet:
    """The part of a set in the action space: itself, if that is known, as it projects faster."""
    lower, upper = action_set.own_bounds(like)
    contained = bool(((low <= lower) & (upper <= high)).all())
    return action_set if contained else action_set & Box(low, high)


def minimize_within(
    f: ConvexFunction, action_set: ConvexSet, low: Tensor, high: Tensor, solver: SolverSettings
) -> Solution:
    """Minimise functions of scaled actions over a set in the environment's units.

        argmin { f(S u + t) : u ∈ action_set, low ≤ u ≤ high },
        S u + t = 2 (u - low) / (high - low) - 1

    Args:
        f: functions of actions scaled to [-1, 1]ⁿ, of batch shape (B,), or of shape (K, B) for K
            modes of which the least counts.
        action_set: any set, of which the part inside the action space counts; in the
            environment's units.
        low: lower bounds of the action space, shape (n,), in double precision.
        high: upper bounds, likewise.
        solver: how precisely to solve.

    Returns:
        Actions in the environment's units, shape (B, n), in double precision, with their
        certificates.

    Raises:
        ValueError: the set has the wrong dimension or misses the action space.
    """
    batch = low.new_zeros(f.batch_shape[-1], len(low))
    scale, shift = 2 / (high - low), -(high + low) / (high - low)
    if isinstance(action_set, Box):
        lower, upper = _intersection(action_set, low, high, batch)
        bounds = (scaled(bound, low, high).float() for bound in (lower, upper))
        solution = solver.minimize(f, Box(*bounds))
        return replace(solution, y=((solution.y - shift) / scale).clamp(lower, upper))
    try:
        within = _inside(action_set, low.float(), high.float(), batch.float())
        plain = bool((scale == 1).all() and (shift == 0).all())  # and faster so
        g = f if plain else f.affine(torch.diag(scale).float(), shift.float())
        solution = solver.minimize(g, within)
    except NonFiniteError:
        raise
    except ValueError as error:
        raise ValueError(
            f"action_set: expected a set of {len(low)} dimensions for {len(batch)} observations; "
            f"got {action_set} ({error})"
        ) from error
    if bool(solution.infeasible.any()):
        raise ValueError(_missed(str(action_set), low, high))
    # To the rounding of the actions; the solver is content with a share of the set's width.
    return replace(solution, y=project_onto(action_set, solution.y.double(), low, high))


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
