"""Q-learning with critics that are concave in the action, so that acting is convex optimisation."""

from __future__ import annotations

import io
import pathlib
from typing import Any, ClassVar, Self

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.noise import ActionNoise, NormalActionNoise, VectorizedActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import (
    GymEnv,
    MaybeCallback,
    ReplayBufferSamples,
    Schedule,
)
from torch import Tensor

from icnn_rl import Solution
from icnn_rl.agents.captured import CapturedUpdate, Update
from icnn_rl.agents.constrained import ConstrainedOffPolicyAlgorithm, held_by_policy
from icnn_rl.agents.critics import ConcaveCritic, Critics, state_values, winning
from icnn_rl.agents.policies import ALIASES, ConcaveQPolicy
from icnn_rl.agents.solver import ACTING, TARGET, SolverSettings, measures
from icnn_rl.agents.validation import require_arguments, require_bounded_box, require_format

FORMAT = 5  # of saved models; raise it when an older archive can no longer be read


class ConcaveQ(ConstrainedOffPolicyAlgorithm):
    """Deep Q-learning without an actor: Q(s, ·) is the negative of a network f convex in a.

        a*(s) = argmin_a  1/E Σ_i f_i(a | s) + λ/2 ‖a‖² - α H(a)      over a in [-1, 1]ⁿ
        Q_i(s, a) = V_i(s) - (f_i(a | s) - f_i(a*(s) | s)),      V_i(s) = -c_i(s)
        y = r + γ (1 - done) min_i V'_i(s')
        loss = Σ_i mean (Q_i(s, a) - y)²

    with c_i the part of f_i that a does not enter, and primes for the target networks; see
    ``ConcaveQPolicy`` for the plain form, Q_i = -f_i. Every argmin is a convex problem, solved to a
    certified gap that is logged (``solver/gap_max``). Where the environment announces an
    ``action_set``, all actions stay in it, a* included. The defaults are twin critics, dueling,
    LayerNorm and a convex path of one layer.

    Args:
        policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` or a ``ConcaveQPolicy``.
        env: an environment, several in a VecEnv, or the id of one.
        learning_rate: of the critics, or a schedule of it by what remains, from 1 to 0, of one
            call of ``learn``.
        buffer_size: transitions that the replay buffer holds.
        learning_starts: steps of random actions before the first update.
        batch_size: transitions per update.
        tau: step of the target networks towards the critics per update: with 1 there are none, and
            the critics make their own targets; with 0 they stay as they are.
        gamma: discount factor.
        train_freq: steps, or ``(n, "episode")``, between calls of ``train``.
        gradient_steps: updates per call of ``train``; -1 for as many as there were steps.
        action_noise: exploration noise, in scaled actions.
        exploration_noise: standard deviation of Gaussian noise where ``action_noise`` is None.
        exploration_temperature: if not None, actions that explore are drawn from the density
            ∝ exp(-f(a) / temperature) in [-1, 1]ⁿ, with f what a* minimises, without noise; for
            one mode only.
        replay_buffer_class: as in stable-baselines3; n-step and HER are such classes.
        replay_buffer_kwargs: its arguments.
        optimize_memory_usage: as in stable-baselines3.
        n_steps: steps of the n-step return.
        target_noise: standard deviation of the noise that smooths the target action (TD3).
        target_noise_clip: largest absolute value of that noise.
        action_l2: λ, the weight of the squared norm of the scaled action, in units of Q. As long
            as Q is small it keeps actions small too, and as Q grows it matters less.
        entropy: α, the weight of the entropy of the action, in units of Q.
        td_clip: if not None, targets are clipped to Q_i(s, a) ± td_clip.
        solver: precision of the argmins of updates.
        acting_solver: precision of the actions of ``predict`` and of exploration.
        compile: whether on CUDA an update is recorded once and launched as one graph, where a
            graph can hold it.
        stats_window_size: episodes over which rollout statistics are averaged.
        tensorboard_log: folder of the TensorBoard log.
        policy_kwargs: arguments of ``ConcaveQPolicy``.
        verbose: 0 silent, 1 informative, 2 for debugging.
        seed: of all random generators.
        device: where the networks live.

    Raises:
        ValueError: the action space is not a bounded Box, exploration is asked for in two ways, or
            an argument of the policy is wrong.

    Source: Amos, Xu & Kolter, ICML 2017; dueling: Wang et al., ICML 2016; the smaller of two
    critics: Fujimoto et al., ICML 2018; ``action_l2``: Plappert et al., 2018.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = ALIASES
    policy: ConcaveQPolicy
    critic: ConcaveCritic
    critic_target: ConcaveCritic | None
    action_l2 = held_by_policy("action_l2", "action_l2")
    entropy = held_by_policy("entropy", "entropy")
    acting_solver = held_by_policy("acting_solver", "solver")

    def __init__(
        self,
        policy: str | type[ConcaveQPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 1e-3,
        buffer_size: int = 1_000_000,
        learning_starts: int = 100,
        batch_size: int = 256,
        tau: float = 0.005,
        gamma: float = 0.99,
        train_freq: int | tuple[int, str] = 1,
        gradient_steps: int = 1,
        action_noise: ActionNoise | None = None,
        exploration_noise: float = 0.2,
        exploration_temperature: float | None = None,
        replay_buffer_class: type[ReplayBuffer] | None = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        optimize_memory_usage: bool = False,
        n_steps: int = 1,
        target_noise: float = 0.0,
        target_noise_clip: float = 0.5,
        action_l2: float = 0.0,
        entropy: float = 0.0,
        td_clip: float | None = None,
        solver: SolverSettings | dict[str, Any] = TARGET,
        acting_solver: SolverSettings | dict[str, Any] = ACTING,
        compile: bool = True,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        if env is not None:
            env = maybe_make_env(env, verbose)
            require_bounded_box(env.action_space)
        super().__init__(
            policy,
            env,
            learning_rate,
            buffer_size,
            learning_starts,
            batch_size,
            tau,
            gamma,
            train_freq,
            gradient_steps,
            action_noise=action_noise,
            replay_buffer_class=replay_buffer_class,
            replay_buffer_kwargs=replay_buffer_kwargs,
            optimize_memory_usage=optimize_memory_usage,
            n_steps=n_steps,
            policy_kwargs=policy_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
            seed=seed,
            sde_support=False,
            supported_action_spaces=(spaces.Box,),
            support_multi_env=True,
        )
        self.format = FORMAT
        self.exploration_noise = exploration_noise
        self.exploration_temperature = exploration_temperature
        self.target_noise = target_noise
        self.target_noise_clip = target_noise_clip
        self.action_l2 = action_l2
        self.entropy = entropy
        self.td_clip = td_clip
        self.solver = TARGET.changed_by(solver)
        self.acting_solver = ACTING.changed_by(acting_solver)
        self.compile = compile
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        # Again after the constructor, as load() sets arguments then.
        self.solver = TARGET.changed_by(self.solver)
        self.acting_solver = ACTING.changed_by(self.acting_solver)
        self._convert_train_freq()
        require_arguments(self)
        # With n_steps stable-baselines3 chooses another buffer, which load() may have to undo.
        buffer = self.replay_buffer_class, self.replay_buffer_kwargs.copy()
        super()._setup_model()
        self.replay_buffer_class, self.replay_buffer_kwargs = buffer
        if isinstance(self.action_noise, VectorizedActionNoise):
            self.action_noise = self.action_noise.base_noise  # learn() makes one per environment
        if self.tau < 1:
            self.policy.add_target_network()
        self.policy.action_l2, self.policy.entropy = self.action_l2, self.entropy
        self.policy.solver = self.acting_solver
        self.actor = self.policy.actor
        self.critic, self.critic_target = self.policy.critic, self.policy.critic_target
        self._captured = CapturedUpdate(self)

    def train(self, gradient_steps: int, batch_size: int = 256) -> None:
        """Make ``gradient_steps`` updates of the critics, each followed by one of the targets."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.critic.optimizer)
        update = self._captured if self.compile else self._update
        losses: list[Tensor] = []
        solutions: list[Solution] = []
        for _ in range(gradient_steps):
            batch = self.replay_buffer.sample(batch_size, env=self._vec_normalize_env)
            loss, found = update(batch)
            losses.append(loss)
            solutions += found
        self.policy.set_training_mode(False)
        self._n_updates += gradient_steps
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        for name, value in measures(losses, solutions).items():
            self.logger.record(name, value)

    def _update(self, batch: ReplayBufferSamples) -> Update:
        critics, following = self.policy.condition(batch.observations, batch.next_observations)
        target, found = self._td_target(batch, following)
        loss, more = self._loss(batch, critics, target)
        self.critic.optimizer.zero_grad()
        loss.backward()
        self.critic.optimizer.step()
        self.critic.net.project_()
        self.policy.update_target(self.tau)
        return loss.detach(), found + more

    @torch.no_grad()
    def _td_target(
        self, batch: ReplayBufferSamples, critics: Critics
    ) -> tuple[Tensor, list[Solution]]:
        """r + γ (1 - done) min_i V'_i(s') or Q'_i(s', a*), shape (B,), and how a* was found."""
        found = []
        if self.policy.dueling and self.target_noise == 0:
            next_q = state_values(critics)
        else:
            solution = self._greedy(critics, batch.next_observations)
            found.append(solution)
            actions = self._smooth(solution.y, batch.next_observations)
            next_q = winning(self.policy.q_values(critics, actions, solution.y))
        discount = self.gamma if batch.discounts is None else batch.discounts.squeeze(-1)
        reward, done = batch.rewards.squeeze(-1), batch.dones.squeeze(-1)
        return reward + discount * (1 - done) * next_q.amin(0), found

    def _loss(
        self, batch: ReplayBufferSamples, critics: Critics, target: Tensor
    ) -> tuple[Tensor, list[Solution]]:
        """Σ_i mean (Q_i(s, a) - y)², and how a* was found where it enters."""
        best, found = batch.actions, []
        if self.policy.dueling:
            with torch.no_grad():
                found.append(self._greedy(critics, batch.observations))
            best = found[0].y
        each = self.policy.q_values(critics, batch.actions, best)
        q = winning(each)
        if self.td_clip is not None:
            target = target.clamp(q.detach() - self.td_clip, q.detach() + self.td_clip)
        loss: Tensor = (q - target).square().mean(-1).sum()
        if self.policy.modes > 1:
            loss = loss + self.critic.home_loss(each, target, batch.actions)
        return loss, found

    def _greedy(self, critics: Critics, observations: Any) -> Solution:
        """The best scaled actions that the environment allows."""
        return self.policy.greedy(critics, self.solver, self._allowed_after(observations))

    def _smooth(self, actions: Tensor, observations: Any) -> Tensor:
        """Scaled actions with the target's noise, where the environment allows them."""
        if self.target_noise == 0:
            return actions
        noise = torch.randn_like(actions).mul_(self.target_noise)
        noise.clamp_(-self.target_noise_clip, self.target_noise_clip)
        return self._keep_allowed((actions + noise).clamp_(-1, 1), observations)

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Actions that explore, and the same scaled."""
        temperature = self.exploration_temperature
        if temperature is not None and self.num_timesteps >= learning_starts:
            assert self._last_obs is not None
            drawn = self.policy.draw(self._last_obs, temperature)
            return self._explore_at(self.policy.unscale_action(drawn), drawn)
        if temperature is None and action_noise is None and self.exploration_noise > 0:
            shape = (n_envs, *self.action_space.shape)
            sigma = np.full(shape, self.exploration_noise, np.float32)
            action_noise = NormalActionNoise(np.zeros_like(sigma), sigma)
        return super()._sample_action(learning_starts, action_noise, n_envs)

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str = "ConcaveQ",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Train for ``total_timesteps`` steps of the environments; see stable-baselines3.

        Calls with ``reset_num_timesteps=False`` make the agent that one call of all their steps
        makes, unless the learning rate is a schedule.
        """
        return super().learn(
            total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar
        )

    @classmethod
    def load(cls, path: str | pathlib.Path | io.BufferedIOBase, *args: Any, **kwargs: Any) -> Self:
        """Load a model saved by ``save``; see stable-baselines3 for the arguments.

        Raises:
            ValueError: the file is no ConcaveQ model, is damaged, or has another format.
        """
        require_format(path, FORMAT)
        return super().load(path, *args, **kwargs)

    def _excluded_save_params(self) -> list[str]:
        modules = ["actor", "critic", "critic_target"]
        return [*super()._excluded_save_params(), *modules, "_captured"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "critic.optimizer"], []
