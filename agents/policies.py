"""Policies without an actor: critics concave in the action, and the action that maximises them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    FlattenExtractor,
    NatureCNN,
)
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor

from icnn_rl import Box, ConvexFunction, Solution, negative_entropy, quadratic, sample
from icnn_rl.agents.critics import ConcaveCritic, Critics, state_values, widths_of, winning
from icnn_rl.agents.solver import (
    ACTING,
    SolverSettings,
    minimize_quadratic,
    minimize_within,
    scaled,
)
from icnn_rl.agents.validation import require, require_keys, require_set
from icnn_rl.networks import ConditionedQuadratic
from icnn_rl.networks.normalization import Norm
from icnn_rl.runs.configuration import require_at_least
from icnn_rl.sets import ConvexSet

SCALED = Box(-1.0, 1.0)  # where scaled actions lie

Observation = np.ndarray | dict[str, np.ndarray]
State = tuple[np.ndarray, ...] | None


class ConcaveQPolicy(BasePolicy):
    """The greedy policy of an ensemble of concave critics, found by convex optimisation.

        π(s) = argmax_a  max_k 1/E Σ_i Q_ik(s, a) - λ/2 ‖a‖² + α H(a)      over a in [-1, 1]ⁿ

    with H the entropy of ``negative_entropy``; K convex problems, of which the best answer is the
    global maximum. Source: Amos, Xu & Kolter, "Input Convex Neural Networks", ICML 2017; the
    quadratic form: Gu, Lillicrap, Sutskever & Levine, "Continuous Deep Q-Learning with Model-based
    Acceleration", ICML 2016; the dueling form: Wang et al., "Dueling Network Architectures for Deep
    Reinforcement Learning", ICML 2016.

    Args:
        observation_space: space of the observations.
        action_space: a bounded Box.
        lr_schedule: learning rate as a function of the remaining progress.
        context: widths of the path on the features of the observation.
        convex: widths of the path on the action, where critics are PICNNs.
        activation: of the path on the action.
        reads: whether all of the path on the action reads the last level of the context, or each
            of its layers the level aligned with it.
        form: of the function of the action: ``picnn`` for any concave one, ``quadratic`` for
            normalised advantage functions (NAF).
        n_critics: E, the networks in the ensemble.
        modes: K, the number of concave functions whose maximum a critic is.
        dueling: whether the part of f_i that the action does not enter is the state's value,
            V_i(s) = -c_i(s), and the rest, g_i, tells only by how much a falls short of the greedy
            action a*: Q_i(s, a) = V_i(s) - (g_i(a | s) - g_i(a* | s)). Else Q_i = -f_i, and targets
            need the greedy actions of the target networks. By default where there is one mode.
        target_network: whether there are further critics, for targets, that follow slowly.
        norm: of the path on the observation: LayerNorm, batch renormalisation or none.
        nonnegativity: how the weights of the path on the action are kept non-negative.
        action_l2: λ ≥ 0, in units of Q.
        entropy: α ≥ 0, in units of Q.
        solver: precision of the actions that ``predict`` returns.
        features_extractor_class: as in stable-baselines3; by default that of the policy's alias.
        features_extractor_kwargs: its arguments.
        normalize_images: whether images are divided by 255.
        net_arch: widths instead of ``context``, as in stable-baselines3: a list, or a dict of
            which ``qf`` counts.
        share_features_extractor: always, as the critic acts.
        optimizer_class: optimiser of the critics.
        optimizer_kwargs: arguments of the optimiser besides the learning rate, such as ``betas``
            and ``weight_decay`` of Adam.

    Raises:
        ValueError: an argument is wrong.
    """

    default_features_extractor: ClassVar[type[BaseFeaturesExtractor]] = FlattenExtractor
    action_space: spaces.Box

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        lr_schedule: Schedule,
        context: tuple[int, ...] = (256, 256),
        convex: tuple[int, ...] = (64,),
        activation: str = "squareplus",
        reads: Literal["last", "aligned"] = "last",
        form: Literal["picnn", "quadratic"] = "picnn",
        n_critics: int = 2,
        modes: int = 1,
        dueling: bool | None = None,
        target_network: bool = False,
        norm: Norm = "layer",
        nonnegativity: Literal["projection", "softplus"] = "projection",
        action_l2: float = 0.0,
        entropy: float = 0.0,
        solver: SolverSettings = ACTING,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        features_extractor_kwargs: dict[str, Any] | None = None,
        normalize_images: bool = True,
        net_arch: Sequence[int] | dict[str, Sequence[int]] | None = None,
        share_features_extractor: bool = True,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            observation_space,
            action_space,
            features_extractor_class or self.default_features_extractor,
            features_extractor_kwargs,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
            normalize_images=normalize_images,
            squash_output=True,
        )
        self.network: dict[str, Any] = {
            "context": tuple(context) if net_arch is None else widths_of(net_arch),
            "convex": tuple(convex),
            "activation": activation,
            "reads": reads,
            "form": form,
            "n_critics": n_critics,
            "modes": modes,
            "norm": norm,
            "nonnegativity": nonnegativity,
        }
        self.n_critics = n_critics
        self.modes = modes
        self.dueling = modes == 1 if dueling is None else dueling
        self.action_l2 = action_l2
        self.entropy = entropy
        self.solver = solver
        require_at_least(1, "", self, "n_critics", "modes")
        require_at_least(0, "", self, "action_l2", "entropy")
        require(modes == 1 or not dueling, "dueling", "one mode with it", modes)
        expected = "True, as the critic acts"
        require(share_features_extractor, "share_features_extractor", expected, False)

        self.critic = self._make_critic()
        # Named here as actors name theirs; a second registration would save its weights twice.
        vars(self)["features_extractor"] = self.critic.features_extractor
        self.critic_target: ConcaveCritic | None = None
        if target_network:
            self.add_target_network()
        self.critic.optimizer = self._make_optimizer(lr_schedule(1))
        self.set_training_mode(False)

    def add_target_network(self) -> None:
        """Have further critics for targets, which are copies at first."""
        self.critic_target = self._make_critic()
        self.critic_target.load_state_dict(self.critic.state_dict())
        self.critic_target.set_training_mode(False)

    def _make_critic(self) -> ConcaveCritic:
        arguments = {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "normalize_images": self.normalize_images,
            **self.network,
        }
        critic = ConcaveCritic(**self._update_features_extractor(arguments), q=self._q)
        return critic.to(self.device)

    def _make_optimizer(self, lr: float) -> torch.optim.Optimizer:
        arguments = self.optimizer_kwargs
        if issubclass(self.optimizer_class, (torch.optim.Adam, torch.optim.AdamW)):
            others = arguments.get("foreach") or arguments.get("differentiable")
            arguments = {"fused": not others} | arguments
        try:
            return self.optimizer_class(self.critic.parameters(), lr=lr, **arguments)  # type: ignore[call-arg]
        except (TypeError, IndexError) as error:
            raise ValueError(
                f"optimizer_kwargs: expected arguments of {self.optimizer_class.__name__}, "
                f"got {self.optimizer_kwargs}"
            ) from error

    @property
    def actor(self) -> ConcaveQPolicy:
        """The policy itself: it acts, though no network of it is an actor."""
        return self

    def condition(self, obs: PyTorchObs, next_obs: PyTorchObs) -> tuple[Critics, Critics]:
        """The critics at s, and at s' those that a target is made of."""
        if self.critic_target is None:
            return self.critic.condition_both(obs, next_obs)
        with torch.no_grad():
            following = self.critic_target.condition(next_obs)
        return self.critic.condition(obs), following

    @torch.no_grad()
    def update_target(self, tau: float) -> None:
        """Move the target networks towards the critics: θ' ← θ' + τ (θ - θ')."""
        if self.critic_target is None:
            return
        weights, target_weights, statistics, target_statistics = self._followed
        torch._foreach_lerp_(target_weights, weights, tau)
        for target, current in zip(target_statistics, statistics, strict=True):
            target.copy_(current)

    @cached_property
    def _followed(self) -> tuple[tuple[Tensor, ...], ...]:
        # Listed once: to walk through the modules takes as long as the update itself.
        assert self.critic_target is not None
        critics = (self.critic, self.critic_target)
        weights = (tuple(critic.parameters()) for critic in critics)
        statistics = (tuple(critic.buffers()) for critic in critics)  # of batch normalisation
        return (*weights, *statistics)

    def objective(self, critics: Critics) -> ConvexFunction:
        """What the greedy action minimises, of batch shape (B,), or (K, B) for K modes."""
        f = critics.mean(0)
        if self.action_l2 > 0:
            f += quadratic(self.action_l2, torch.zeros(self.critic.dim, device=self.device))
        if self.entropy > 0:
            f += negative_entropy(self.entropy)
        return f

    def greedy(
        self, critics: Critics, solver: SolverSettings, action_set: ConvexSet | None = None
    ) -> Solution:
        """The best scaled actions for conditioned critics, acting or learning.

        Where ``action_set`` is given, in the environment's units, the best ones in it.
        """
        f = self.objective(critics)
        if action_set is not None:
            low, high = self.bounds()
            solution = minimize_within(f, action_set, low, high, solver)
            return replace(solution, y=scaled(solution.y, low, high).to(solution.value))
        if isinstance(f, ConditionedQuadratic):
            return minimize_quadratic(f)  # its centre is always in the box
        return solver.minimize(f, SCALED)

    def q(self, obs: PyTorchObs, actions: Tensor, action_set: ConvexSet | None = None) -> Tensor:
        """Q_i(s, a) of scaled actions, shape (E, B), where all or those of a set are allowed."""
        return self._q(self.critic.condition(obs), actions, action_set)

    def _q(self, critics: Critics, actions: Tensor, action_set: ConvexSet | None = None) -> Tensor:
        best = actions
        if self.dueling:
            with torch.no_grad():
                best = self.greedy(critics, self.solver, action_set).y
        return winning(self.q_values(critics, actions, best))

    def q_values(self, critics: Critics, actions: Tensor, best: Tensor) -> Tensor:
        """Q_ik(s, a) under conditioned critics, of which ``best`` are the greedy actions."""
        if not self.dueling:
            return -critics.value(actions)
        return state_values(critics) - (critics.value(actions) - critics.value(best))

    @torch.no_grad()
    def solve(self, obs: PyTorchObs) -> Solution:
        """The greedy actions, scaled to [-1, 1], with their certificates."""
        return self.greedy(self.critic.condition(obs), self.solver)

    @torch.no_grad()
    def draw(self, observation: Observation, temperature: float) -> np.ndarray:
        """Actions from the density ∝ exp(-``objective`` / temperature), scaled to [-1, 1]."""
        self.set_training_mode(False)
        obs, _ = self.obs_to_tensor(observation)
        critics = self.critic.condition(obs)
        start = self.greedy(critics, self.solver).y
        return self._array(sample(self.objective(critics), SCALED, temperature, start=start))

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        return self.solve(observation).y

    def forward(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        """The greedy actions, scaled to [-1, 1]; there is no other kind."""
        return self._predict(observation, deterministic)

    def predict(
        self,
        observation: Observation,
        state: State = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_set: ConvexSet | None = None,
    ) -> tuple[np.ndarray, State]:
        """The greedy action, in the environment's units.

        Args:
            observation: one observation, or one for each of several environments.
            state: ignored, and returned as it came.
            episode_start: ignored.
            deterministic: ignored, the greedy action always is.
            action_set: where the action may lie, in the environment's units; the part of it inside
                the action space counts.

        Returns:
            The action, or one for each environment, and ``state``.

        Raises:
            ValueError: the observation has the wrong shape, or ``action_set`` is no ConvexSet, has
                the wrong dimension or misses the action space.
        """
        require_set(action_set)
        self.set_training_mode(False)
        obs, vectorized = self.obs_to_tensor(observation)
        with torch.no_grad():
            critics = self.critic.condition(obs)
            if action_set is None:
                actions = self.unscale_action(self._array(self.greedy(critics, self.solver).y))
            else:
                f = self.objective(critics)
                solution = minimize_within(f, action_set, *self.bounds(), self.solver)
                actions = self._array(solution.y)
        actions = self.in_space(actions)
        return actions if vectorized else actions[0], state

    def _array(self, actions: Tensor) -> np.ndarray:
        """Actions of shape (B, n) in the shape of the action space."""
        return actions.cpu().numpy().reshape(-1, *self.action_space.shape)

    def obs_to_tensor(self, observation: Observation) -> tuple[PyTorchObs, bool]:
        """The observation as a batch, and whether it came as one."""
        require_keys(observation, self.observation_space)
        return super().obs_to_tensor(observation)

    def in_space(self, actions: np.ndarray) -> np.ndarray:
        """Actions in the type of the action space, and inside it where rounding led out."""
        space = self.action_space
        return np.clip(actions.astype(space.dtype), space.low, space.high)

    def bounds(self) -> tuple[Tensor, Tensor]:
        """The bounds of the action space, each of shape (n,), in double precision."""
        bounds = np.array([self.action_space.low, self.action_space.high], np.float64)
        low, high = torch.as_tensor(bounds, device=self.device).flatten(1)
        return low, high

    def set_training_mode(self, mode: bool) -> None:
        """Switch the critic (never its target) between training and evaluation."""
        if mode != self.training:
            self.critic.set_training_mode(mode)
            self.training = mode

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | {
            **self.network,
            "dueling": self.dueling,
            "target_network": self.critic_target is not None,
            "lr_schedule": self._dummy_schedule,
            "action_l2": self.action_l2,
            "entropy": self.entropy,
            "solver": self.solver,
            "features_extractor_class": self.features_extractor_class,
            "features_extractor_kwargs": self.features_extractor_kwargs,
            "optimizer_class": self.optimizer_class,
            "optimizer_kwargs": self.optimizer_kwargs,
        }


MlpPolicy = ConcaveQPolicy


class CnnPolicy(ConcaveQPolicy):
    """``ConcaveQPolicy`` on images."""

    default_features_extractor = NatureCNN


class MultiInputPolicy(ConcaveQPolicy):
    """``ConcaveQPolicy`` on Dict observations."""

    default_features_extractor = CombinedExtractor


ALIASES: dict[str, type[BasePolicy]] = {
    "MlpPolicy": MlpPolicy,
    "CnnPolicy": CnnPolicy,
    "MultiInputPolicy": MultiInputPolicy,
}
