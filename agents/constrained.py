"""Off-policy learning where the environment may say which actions are allowed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import GymEnv

from icnn_rl.agents.action_sets import (
    allowed,
    announced_set,
    is_method,
    project_onto,
    unknown_set,
    unnormalized,
)
from icnn_rl.agents.policies import ConcaveQPolicy, Observation, State
from icnn_rl.agents.validation import require_finite, require_set
from icnn_rl.envs.constraints import ActionSet
from icnn_rl.sets import ConvexSet


class ConstrainedOffPolicyAlgorithm(OffPolicyAlgorithm):
    """An off-policy algorithm that acts and explores within the set its environment announces.

    Numbers from the environment that are not finite are refused, but for an infinity in the final
    observation of an episode under VecNormalize, which keeps the clipped one alone. How to learn,
    and within the set of the next state, is for a subclass to say.
    """

    policy: ConcaveQPolicy
    action_space: spaces.Box
    replay_buffer: ReplayBuffer
    action_set: ActionSet | None = None
    set_is_method = False
    normalized_observations = False

    def _setup_model(self) -> None:
        super()._setup_model()
        if self.env is not None:
            self._announce()
        elif self.set_is_method:
            self.action_set = unknown_set

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Go on in another environment, and within its set if it announces one."""
        super().set_env(env, force_reset)
        self._announce()

    def _announce(self) -> None:
        assert self.env is not None
        self.action_set = announced_set(self.env)
        self.set_is_method = is_method(self.action_set)
        normalizer = self._vec_normalize_env
        self.normalized_observations = normalizer is not None and normalizer.norm_obs

    def predict(
        self,
        observation: Observation,
        state: State = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_set: ConvexSet | None = None,
    ) -> tuple[np.ndarray, State]:
        """The greedy action, within ``action_set`` if given; see ``ConcaveQPolicy.predict``.

        Where the environment announces a set of its own, within that as well.
        """
        require_set(action_set)
        if self.action_set is not None:
            observations, _ = self.policy.obs_to_tensor(observation)
            own = self._set_after(observations)
            action_set = own if action_set is None else action_set & own
        return self.policy.predict(observation, state, episode_start, deterministic, action_set)

    def _set_after(self, observations: Any) -> ConvexSet:
        """What the environment allows after a batch of observations."""
        assert self.action_set is not None
        if self.normalized_observations and self._vec_normalize_env is None:
            raise ValueError(
                "env: expected the VecNormalize of training, as the environment's action_set is "
                "one of its own observations, got none; load the model with env=..."
            )
        return allowed(self.action_set, unnormalized(observations, self._vec_normalize_env))

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Actions that explore, and the same scaled."""
        return self._allowed(*super()._sample_action(learning_starts, action_noise, n_envs))

    def _allowed(self, actions: np.ndarray, scaled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The nearest actions that the environment allows now, and the same scaled."""
        if self.action_set is None:
            return self.policy.in_space(actions), scaled
        # Without the rounding and the clipping of normalised observations.
        exact = self._last_obs if self._vec_normalize_env is None else self._last_original_obs
        assert exact is not None
        observations: Any = self.policy.obs_to_tensor(exact)[0]
        flat = torch.as_tensor(actions, device=self.device).flatten(1)
        nearest = project_onto(allowed(self.action_set, observations), flat, *self.policy.bounds())
        actions = self.policy.in_space(nearest.cpu().numpy().reshape(actions.shape))
        return actions, self.policy.scale_action(actions)

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        prepared = super()._setup_learn(*args, **kwargs)
        assert self._last_obs is not None
        require_finite("first observation", self._last_obs, self.num_timesteps)
        return prepared

    def _store_transition(
        self,
        replay_buffer: ReplayBuffer,
        buffer_action: np.ndarray,
        new_obs: Observation,
        reward: np.ndarray,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        obs, step = new_obs, self.num_timesteps
        if self._vec_normalize_env is not None:
            # Normalised values are clipped, which would hide an infinity.
            obs = self._vec_normalize_env.get_original_obs()
            rewards = self._vec_normalize_env.get_original_reward()
        else:
            rewards = reward
        require_finite("observation", obs, step)
        require_finite("reward", rewards, step)
        for i in np.flatnonzero(dones):
            require_finite("final observation", infos[i].get("terminal_observation", 0.0), step)
        super()._store_transition(replay_buffer, buffer_action, new_obs, reward, dones, infos)

    def _excluded_save_params(self) -> list[str]:
        excluded = super()._excluded_save_params()
        return [*excluded, "action_set"] if self.set_is_method else excluded
