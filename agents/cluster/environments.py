"""A vectorised environment on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
from stable_baselines3.common.vec_env.base_vec_env import (
    VecEnvIndices,
    VecEnvObs,
    VecEnvStepReturn,
)

from icnn_rl.agents.cluster import connect


class RayVecEnv(VecEnv):
    """Environments in Ray actors, one a processor, each of which steps its share of them.

    Their seeds and results are those of a ``DummyVecEnv``.

    Args:
        makers: for each environment, a function that makes it.
        address, jobs: of the cluster, as for ``connect``.

    Raises:
        ValueError: Ray is not installed, or there is no such cluster.
    """

    def __init__(
        self, makers: Sequence[Callable[[], gym.Env[Any, Any]]], address: str | None, jobs: int
    ) -> None:
        first = makers[0]()  # an error is raised here, not in an actor
        observations, actions = first.observation_space, first.action_space
        first.close()
        self._ray = connect(address, jobs)
        actors = min(len(makers), int(self._ray.cluster_resources().get("CPU", 1)))
        self._shares = np.array_split(np.arange(len(makers)), actors)
        actor = self._ray.remote(num_cpus=1)(_Share)
        self._actors = [actor.remote([makers[i] for i in share]) for share in self._shares]
        self._steps: list[Any] = []
        super().__init__(len(makers), observations, actions)

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        seeds = super().seed(seed)
        self._all("seed", [seeds[share[0]] for share in self._shares])
        return seeds

    def set_options(self, options: list[dict[str, Any]] | dict[str, Any] | None = None) -> None:
        super().set_options(options)
        self._all("set_options", [[self._options[i] for i in share] for share in self._shares])

    def reset(self) -> VecEnvObs:
        begun = self._get([actor.begin.remote() for actor in self._actors])
        observations, infos = zip(*begun, strict=True)
        self.reset_infos = list(chain(*infos))
        joined: VecEnvObs = _joined(observations)
        return joined

    def step_async(self, actions: np.ndarray) -> None:
        parts = (actions[share] for share in self._shares)
        self._steps = [a.advance.remote(part) for a, part in zip(self._actors, parts, strict=True)]

    def step_wait(self) -> VecEnvStepReturn:
        results = zip(*self._get(self._steps), strict=True)
        observations, rewards, dones, infos, reset_infos = results
        self.reset_infos = list(chain(*reset_infos))
        joined = np.concatenate(rewards), np.concatenate(dones), list(chain(*infos))
        return _joined(observations), *joined

    def close(self) -> None:
        self._ray.shutdown()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        return self._each("get_attr", indices, attr_name)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        self._each("set_attr", indices, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **kwargs: Any
    ) -> list[Any]:
        return self._each("env_method", indices, method_name, *method_args, **kwargs)

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        return self._each("env_is_wrapped", indices, wrapper_class)

    def _all(self, method: str, arguments: Sequence[Any]) -> list[Any]:
        """Call a method of every actor, each with its own argument."""
        calls = [getattr(actor, method) for actor in self._actors]
        pairs = zip(calls, arguments, strict=True)
        return self._get([call.remote(argument) for call, argument in pairs])

    def _each(self, method: str, indices: VecEnvIndices, *args: Any, **kwargs: Any) -> list[Any]:
        """Call a method for each of some environments."""
        places = [
            (getattr(actor, method), k)
            for actor, share in zip(self._actors, self._shares, strict=True)
            for k in range(len(share))
        ]
        chosen = [places[i] for i in self._get_indices(indices)]
        found = self._get([call.remote(*args, indices=[k], **kwargs) for call, k in chosen])
        return [result[0] if result else None for result in found]

    def _get(self, references: list[Any]) -> list[Any]:
        """The results of actors; the first error of an environment is raised here."""
        results, errors = [], []
        for reference in references:  # all, because Ray prints errors that are not fetched
            try:
                results.append(self._ray.get(reference))
            except self._ray.exceptions.RayTaskError as error:
                errors.append(error)
        if errors:
            raise errors[0].cause from errors[0]
        return results


class _Share(DummyVecEnv):
    """The environments of one actor."""

    def begin(self) -> tuple[VecEnvObs, list[dict[str, Any]]]:
        return self.reset(), self.reset_infos

    def advance(self, actions: np.ndarray) -> tuple[Any, ...]:
        return *self.step(actions), self.reset_infos


def _joined(parts: Sequence[Any]) -> Any:
    """Observations of several actors as those of one."""
    if isinstance(parts[0], dict):
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return np.concatenate(parts)
