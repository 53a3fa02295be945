"""Limits on the actions of any task with a Box of actions, announced to whoever acts.

A limited task has an attribute ``action_set``: a small callable that takes observations, of shape
``(B, observation_dim)``, and returns a convex set for each, in the units of the actions. The set
depends only on the observation, so the task stays Markov.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_
from typing import Any, Protocol, SupportsFloat

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from torch import Tensor

from icnn_rl import Ball, Box, ConvexSet, L1Ball

Array = npt.NDArray[np.float32]


class ActionSet(Protocol):
    """The feasible actions after each of a batch of observations."""

    def __call__(self, observations: Tensor) -> ConvexSet: ...


@dataclass(frozen=True)
class WithinPower:
    """{ a : Σᵢ |wᵢ aᵢ| ≤ limit }, w numbers or the entries ``velocities`` of the observation."""

    limit: float
    weights: tuple[float, ...]
    velocities: tuple[int, ...] = ()

    def __call__(self, observations: Tensor) -> ConvexSet:
        if self.velocities:
            return L1Ball(self.limit, observations[..., list(self.velocities)].abs())
        return L1Ball(self.limit, observations.new_tensor(self.weights))


@dataclass(frozen=True)
class WithinBall:
    """{ a : ‖a‖₂ ≤ radius }."""

    radius: float

    def __call__(self, observations: Tensor) -> ConvexSet:
        return Ball(self.radius)


@dataclass(frozen=True)
class WithinRamp:
    """{ a : |a - a'| ≤ limit }, a' the previous action, in the observation from ``first`` on."""

    limit: tuple[float, ...]
    first: int

    def __call__(self, observations: Tensor) -> ConvexSet:
        limit = observations.new_tensor(self.limit)
        previous = observations[..., self.first : self.first + len(self.limit)]
        return Box(previous - limit, previous + limit)


@dataclass(frozen=True)
class AllOf:
    """The intersection of several sets, which must never be empty.

    A ball and ramp limits always meet. A weighted ℓ1 ball whose weights change may exclude all
    actions that ramp limits allow.
    """

    parts: tuple[ActionSet, ...]

    def __call__(self, observations: Tensor) -> ConvexSet:
        return reduce(and_, (part(observations) for part in self.parts))


def parts_of(action_set: ActionSet) -> tuple[ActionSet, ...]:
    """The sets whose intersection it is; itself if there is one only."""
    return action_set.parts if isinstance(action_set, AllOf) else (action_set,)


def announced(env: gym.Env[Any, Any]) -> ActionSet | None:
    """``action_set`` of an environment, or of the outermost of its wrappers that has one, if any.

    Raises:
        ValueError: wrappers around it change actions or observations, so that nobody outside them
            could read it.
    """
    changing: str | None = None
    while not hasattr(env, "action_set"):
        if not isinstance(env, gym.Wrapper):
            return None
        changes = isinstance(env, (gym.ActionWrapper, gym.ObservationWrapper))
        if changes or not same_spaces(env, env.env):
            changing = changing or env.class_name()
        env = env.env
    if changing is not None:
        raise ValueError(
            f"env: expected the actions and observations of whatever announces the action_set, "
            f"{env}; got those of {changing} around it; limit the actions outside it"
        )
    found: ActionSet = env.action_set
    return found


class _HasSpaces(Protocol):
    @property
    def action_space(self) -> spaces.Space[Any]: ...
    @property
    def observation_space(self) -> spaces.Space[Any]: ...


def same_spaces(one: _HasSpaces, other: _HasSpaces) -> bool:
    """Whether two environments have the same actions and observations."""
    pairs = [(env.action_space, env.observation_space) for env in (one, other)]
    return pairs[0] == pairs[1]


class LimitedActions(gym.Wrapper[Array, Array, Array, Array], gym.utils.RecordConstructorArgs):
    """A task whose actions have to keep to a set.

    ``info["violation"]`` is the Euclidean distance of the action from the set, in the action's
    units. By default an action outside is projected before it is passed on, so agents that know
    nothing of the limit act with projected actions.

    Args:
        env: a task with flat observations and a flat, bounded Box of actions.
        limit: the feasible actions; ``action_set`` is its intersection with what ``env`` announces.
        project: whether actions outside the set are projected onto it.

    Raises:
        ValueError: the task is another one, or announces a set of other actions or observations.
    """

    def __init__(self, env: gym.Env[Array, Array], limit: ActionSet, project: bool = True) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, limit=limit, project=project)
        super().__init__(env)
        actions, observations = _flat_spaces(env)
        inside = announced(env)
        self.action_set: ActionSet = limit if inside is None else AllOf((*parts_of(inside), limit))
        self.project = project
        self._bounds = Box(*(torch.from_numpy(b).double() for b in (actions.low, actions.high)))
        self._rest: Array = np.clip(np.zeros_like(actions.low), actions.low, actions.high)
        self._applied = self._rest
        self._observation = np.zeros(observations.shape, np.float32)

    def observe(self, observation: Array) -> Array:
        """The observation as the agent gets it."""
        return observation

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        self._applied = self._rest
        self._observation = self.observe(observation)
        return self._observation, info

    def step(self, action: Array) -> tuple[Array, SupportsFloat, bool, bool, dict[str, Any]]:
        nearest = self.nearest(action)
        violation = float(np.linalg.norm(np.asarray(action, np.float64) - nearest))
        self._applied = np.array(nearest if self.project else action, self._rest.dtype)
        observation, reward, terminated, truncated, info = self.env.step(self._applied)
        self._observation = self.observe(observation)
        info = info | {"violation": violation}
        return self._observation, reward, terminated, truncated, info

    def nearest(self, action: Array) -> npt.NDArray[np.float64]:
        """The nearest action that the set and the action space allow now.

        Raises:
            ValueError: they allow none.
        """
        observations = torch.as_tensor(self._observation).double().unsqueeze(0)
        allowed = self.action_set(observations) & self._bounds
        nearest = allowed.project(torch.as_tensor(np.asarray(action, np.float64)).unsqueeze(0))
        # The projection onto an empty intersection lies in some of the sets only.
        for part in (self._bounds, *(limit(observations) for limit in parts_of(self.action_set))):
            if not bool(part.contains(nearest)):
                raise ValueError(
                    f"env: expected limits that some action meets, got {self.action_set}"
                )
        return np.asarray(nearest[0])


class PowerLimit(LimitedActions):
    """A task whose actions stay in a weighted ℓ1 ball: Σᵢ |wᵢ aᵢ| ≤ limit.

    Args:
        env: the task.
        limit: in units of the weights times the actions; > 0.
        weights: one for each action; 1 by default.
        velocities: entries of the observation that are the weights instead, such as the joint
            velocities that make torques into powers.
        project: as in ``LimitedActions``.

    Raises:
        ValueError: there is not one weight for each action, or no such entry, or a number is not
            finite, or the limit not positive.
    """

    def __init__(
        self,
        env: gym.Env[Array, Array],
        limit: float,
        weights: Sequence[float] | None = None,
        velocities: Sequence[int] | None = None,
        project: bool = True,
    ) -> None:
        gym.utils.RecordConstructorArgs.__init__(
            self, limit=limit, weights=weights, velocities=velocities, project=project
        )
        _require_positive("limit", limit)
        n, entries = (space.shape[0] for space in _flat_spaces(env))
        for name, given in (("weights", weights), ("velocities", velocities)):
            if given is not None and len(given) != n:
                raise ValueError(f"{name}: expected one for each of {n} actions, got {given}")
        if weights is not None and velocities is not None:
            raise ValueError("weights, velocities: expected one of them, got both")
        scales = tuple(abs(float(w)) for w in (np.ones(n) if weights is None else weights))
        if not np.isfinite(scales).all():
            raise ValueError(f"weights: expected finite numbers, got {weights}")
        chosen = tuple(int(i) for i in (() if velocities is None else velocities))
        if not all(0 <= i < entries for i in chosen):
            raise ValueError(
                f"velocities: expected entries of the observation, from 0 to {entries - 1}; "
                f"got {chosen}"
            )
        super().__init__(env, WithinPower(float(limit), scales, chosen), project)


class ActionBall(LimitedActions):
    """A task whose actions stay in a ball: ‖a‖₂ ≤ radius.

    Args:
        env: the task.
        radius: in the units of the actions; > 0.
        project: as in ``LimitedActions``.

    Raises:
        ValueError: the radius is not positive.
    """

    def __init__(self, env: gym.Env[Array, Array], radius: float, project: bool = True) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, radius=radius, project=project)
        _require_positive("radius", radius)
        super().__init__(env, WithinBall(float(radius)), project)


class RampLimits(LimitedActions):
    """A task whose actions change slowly: |a_t - a_{t-1}| ≤ limit in every coordinate.

    The previous action follows the task's observation; at first it is 0, clipped to the space.

    Args:
        env: the task.
        limit: a step's largest change, for all actions or one for each, in their units; > 0.
        project: as in ``LimitedActions``.

    Raises:
        ValueError: a limit is not positive, or there is not one for each action.
    """

    def __init__(
        self, env: gym.Env[Array, Array], limit: float | Sequence[float], project: bool = True
    ) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, limit=limit, project=project)
        _require_positive("limit", limit)
        actions, observations = _flat_spaces(env)
        if np.ndim(limit) > 0 and np.shape(limit) != actions.shape:
            raise ValueError(f"limit: expected one for each of {actions.shape} actions: {limit}")
        limits = np.broadcast_to(np.asarray(limit, float), actions.shape)
        ramp = WithinRamp(tuple(limits.tolist()), observations.shape[0])
        super().__init__(env, ramp, project)
        dtype: Any = np.result_type(observations.dtype, actions.dtype)
        self.observation_space = spaces.Box(
            np.concatenate([observations.low, actions.low]).astype(dtype),
            np.concatenate([observations.high, actions.high]).astype(dtype),
            dtype=dtype,
        )

    def observe(self, observation: Array) -> Array:
        joined: Array = np.concatenate([observation, self._applied])
        return joined.astype(self.observation_space.dtype)


def _flat_spaces(env: _HasSpaces) -> tuple[spaces.Box, spaces.Box]:
    """The actions and the observations, each a Box with one axis."""
    actions, observations = env.action_space, env.observation_space
    for name, space in (("actions", actions), ("observations", observations)):
        if not isinstance(space, spaces.Box) or len(space.shape) != 1:
            raise ValueError(f"env: expected {name} in a Box with one axis, got {space}")
    assert isinstance(actions, spaces.Box)
    assert isinstance(observations, spaces.Box)
    return actions, observations


def _require_positive(name: str, value: float | Sequence[float]) -> None:
    numbers = np.asarray(value, float)
    if not (np.isfinite(numbers) & (numbers > 0)).all():
        raise ValueError(f"{name}: expected finite numbers > 0, got {value}")
