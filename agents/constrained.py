"""Off-policy learning where the environment may say which actions are allowed."""

from __future__ import annotations

import warnings
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecNormalize, VecTransposeImage
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer
from torch import Tensor

from icnn_rl.agents.policies import ConcaveQPolicy, Observation, State
from icnn_rl.agents.solver import project_onto, scaled
from icnn_rl.agents.validation import require, require_finite, require_set
from icnn_rl.envs.constraints import ActionSet, announced, parts_of, same_spaces
from icnn_rl.sets import ConvexSet


class ConstrainedOffPolicyAlgorithm(OffPolicyAlgorithm):
    """An off-policy algorithm that acts and explores within the set its environment announces.

    It refuses numbers from the environment that are not finite, except an infinity in the final
    observation of an episode under VecNormalize, which keeps only the clipped value. A subclass
    learns, and finds the set of the next state by ``_allowed_after``.
    """

    policy: ConcaveQPolicy
    action_space: spaces.Box
    replay_buffer: ReplayBuffer
    action_set: ActionSet | None = None
    set_is_method = False  # a method of the environment cannot be saved with the model
    normalized_observations = False

    def _setup_model(self) -> None:
        super()._setup_model()
        if self.env is not None:
            self._find_action_set()
        elif self.set_is_method:
            self.action_set = _unknown_set

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Go on in another environment, and within its set if it announces one."""
        super().set_env(env, force_reset)
        self._find_action_set()

    def _find_action_set(self) -> None:
        assert self.env is not None
        self.action_set = announced_set(self.env)
        self.set_is_method = _is_method(self.action_set)
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
            own = self._allowed_after(self.policy.obs_to_tensor(observation)[0])
            assert own is not None
            action_set = own if action_set is None else action_set & own
        return self.policy.predict(observation, state, episode_start, deterministic, action_set)

    def _allowed_after(self, observations: Any) -> ConvexSet | None:
        """The actions that the environment allows after observations; None for all."""
        if self.action_set is None:
            return None
        if (normalizer := self._vec_normalize_env) is not None:
            observations = _unnormalized(observations, normalizer)
        elif self.normalized_observations:
            raise ValueError(
                "env: expected the VecNormalize of training, as the environment's action_set is "
                "one of its own observations, got none; load the model with env=..."
            )
        return self._announced_at(observations)

    def _announced_at(self, observations: Any) -> ConvexSet:
        """The set for the environments' own observations."""
        assert self.action_set is not None
        allowed = self.action_set(observations)
        require_set(allowed)
        return allowed

    def _keep_allowed(self, actions: Tensor, observations: Any) -> Tensor:
        """The nearest scaled actions that the environment allows after observations."""
        allowed = self._allowed_after(observations)
        if allowed is None:
            return actions
        low, high = self.policy.bounds()
        original = low + (actions + 1) / 2 * (high - low)
        return scaled(project_onto(allowed, original, low, high), low, high).to(actions)

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Actions that explore, and the same scaled."""
        return self._explore_at(*super()._sample_action(learning_starts, action_noise, n_envs))

    def _explore_at(self, actions: np.ndarray, scaled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The nearest actions that the environment allows now, and the same scaled."""
        if self.action_set is None:
            return self.policy.in_space(actions), scaled
        # Normalised observations are rounded and clipped.
        exact = self._last_obs if self._vec_normalize_env is None else self._last_original_obs
        assert exact is not None
        observations: Any = self.policy.obs_to_tensor(exact)[0]
        flat = torch.as_tensor(actions, device=self.device).flatten(1)
        nearest = project_onto(self._announced_at(observations), flat, *self.policy.bounds())
        actions = self.policy.in_space(nearest.cpu().numpy().reshape(actions.shape))
        return actions, self.policy.scale_action(actions)

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        goes_on = not reset_num_timesteps and self._last_obs is not None
        noise = deepcopy(self.action_noise)
        prepared = super()._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        if goes_on and type(noise) is type(self.action_noise):
            self.action_noise = noise  # stable-baselines3 resets it amid an episode
        assert self._last_obs is not None
        if not goes_on:
            end_episodes(self.replay_buffer)
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
        obs, rewards, step = new_obs, reward, self.num_timesteps
        if self._vec_normalize_env is not None:
            # Normalised values are clipped, which would hide an infinity.
            obs = self._vec_normalize_env.get_original_obs()
            rewards = self._vec_normalize_env.get_original_reward()
        require_finite("observation", obs, step)
        require_finite("reward", rewards, step)
        for i in np.flatnonzero(dones):
            require_finite("final observation", infos[i].get("terminal_observation", 0.0), step)
        super()._store_transition(replay_buffer, buffer_action, new_obs, reward, dones, infos)

    def _excluded_save_params(self) -> list[str]:
        excluded = super()._excluded_save_params()
        return [*excluded, "action_set"] if self.set_is_method else excluded


def held_by_policy(name: str, of_policy: str) -> property:
    """An argument of an algorithm that its policy acts by: set later, it changes in both.

    Args:
        name: of the algorithm's argument.
        of_policy: name of the policy's attribute.
    """

    def get(model: Any) -> Any:
        return vars(model)[name]  # where stable-baselines3 saves it from and loads it to

    def set_both(model: Any, value: Any) -> None:
        vars(model)[name] = value
        if "policy" in vars(model):
            setattr(model.policy, of_policy, value)

    return property(get, set_both)


def end_episodes(buffer: ReplayBuffer) -> None:
    """Mark the last step of each environment as one at which its episode was cut off.

    Otherwise returns of several steps would reach into the next episode.
    """
    if isinstance(buffer, HerReplayBuffer):
        with warnings.catch_warnings(action="ignore"):
            buffer.truncate_last_trajectory()
    elif buffer.size() and buffer.handle_timeout_termination:
        last = buffer.pos - 1
        going_on = buffer.dones[last] == 0
        buffer.dones[last, going_on] = buffer.timeouts[last, going_on] = 1


def announced_set(env: VecEnv) -> ActionSet | None:
    """The attribute ``action_set`` of the environments, found through their wrappers, if any.

    It reads observations as they were before a VecNormalize, and images channels first.

    Raises:
        ValueError: the environments do not all announce the same set, or wrappers around the one
            that announces it change actions or observations. In environments of other processes
            such wrappers are not found.
    """
    announcing = env.env_method("has_wrapper_attr", "action_set")
    if not any(announcing):
        return None
    count = f"one in {sum(announcing)} of {len(announcing)}"
    require(all(announcing), "env", "an action_set in all environments or in none", count)
    try:
        first, *others = env.get_attr("action_set")
    except (EOFError, OSError) as error:
        raise ValueError(
            "env: expected an action_set that other processes can send, an object of a module that "
            "they import; got one that they cannot pickle"
        ) from error
    expected = "an action_set that is a function of a batch of observations"
    require(callable(first), "env", expected, first)
    same = all(_identity(other) == _identity(first) for other in others)
    require(same, "env", "one action_set in all environments", f"{first}, {others}")
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


def _unknown_set(observations: Tensor) -> ConvexSet:
    """Stands in for the method of an environment that is missing."""
    raise ValueError(
        "env: expected the environment, whose method action_set says which actions it allows; got "
        "none; load the model with env=..."
    )


def _is_method(action_set: ActionSet | None) -> bool:
    return action_set is not None and any(hasattr(p, "__self__") for p in parts_of(action_set))


def _identity(action_set: ActionSet) -> object:
    """Equal for the same functions; a method is the same whichever object it belongs to."""
    return [getattr(part, "__func__", part) for part in parts_of(action_set)]


def _unnormalized(observations: Any, normalizer: VecNormalize) -> Any:
    """The environments' own observations, from those that a normaliser returned."""
    if isinstance(observations, dict):
        arrays: Any = {key: t.cpu().numpy() for key, t in observations.items()}
        device = next(iter(observations.values())).device
    else:
        arrays, device = observations.cpu().numpy(), observations.device
    return obs_as_tensor(normalizer.unnormalize_obs(arrays), device)
