"""Critics that are concave in the action: an ensemble, each the maximum of a few functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BaseModel
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import Tensor

from icnn_rl import PICNN
from icnn_rl.agents.validation import require
from icnn_rl.functions import Modes
from icnn_rl.networks import ConditionedNetwork, ConditionedQuadratic, QuadraticNetwork
from icnn_rl.networks.normalization import Norm

Critics = ConditionedNetwork | ConditionedQuadratic | Modes


class ConcaveCritic(BaseModel):
    """An ensemble of E critics, each the maximum of K functions concave in the action.

        Q_i(s, a) = -f_ik(a | s),      k = argmin_k 1/E Σ_i f_ik(a | s),      i = 1..E, k = 1..K

    One mode wins for all critics, so that max_a 1/E Σ_i Q_i(s, a) is K convex problems, not Kᴱ.
    Actions are scaled to [-1, 1]. The ensemble is one network with E K members, on top of
    stable-baselines3's features extractor.
    """

    features_extractor: BaseFeaturesExtractor
    net: PICNN | QuadraticNetwork
    homes: Tensor

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        features_extractor: BaseFeaturesExtractor,
        features_dim: int,
        normalize_images: bool,
        form: str,
        n_critics: int,
        modes: int,
        context: tuple[int, ...],
        norm: Norm,
        q: Callable[[Critics, Tensor], Tensor],
        **convex: Any,
    ) -> None:
        super().__init__(
            observation_space,
            action_space,
            features_extractor=features_extractor,
            normalize_images=normalize_images,
        )
        self.modes = modes
        self._q = q  # of the policy, as that of dueling critics depends on the greedy actions
        self.dim = get_action_dim(action_space)
        require(form in ("picnn", "quadratic"), "form", "'picnn' or 'quadratic'", repr(form))
        dims, ensemble = (features_dim, self.dim), n_critics * modes
        if form == "picnn":
            self.net = PICNN(*dims, context=context, ensemble=ensemble, norm=norm, **convex)
        else:
            self.net = QuadraticNetwork(*dims, context=context, ensemble=ensemble, norm=norm)
        sequence = torch.quasirandom.SobolEngine(self.dim, scramble=True, seed=0)
        self.register_buffer("homes", 2 * sequence.draw(modes) - 1, persistent=False)

    def forward(self, obs: PyTorchObs, actions: Tensor) -> tuple[Tensor, ...]:
        """Q_i(s, a) of scaled actions, a tensor of shape (B, 1) for each critic."""
        return tuple(self._q(self.condition(obs), actions).unsqueeze(-1))

    def condition(self, obs: PyTorchObs) -> Critics:
        """The functions f_ik of a batch of observations, of shape (E, K, B), or (E, B) if K = 1."""
        return self._critics(self.extract_features(obs, self.features_extractor))

    def condition_both(self, obs: PyTorchObs, following: PyTorchObs) -> tuple[Critics, Critics]:
        """The functions of two batches of the same size, normalised as one."""
        parts = [self.extract_features(o, self.features_extractor) for o in (obs, following)]
        critics = self._critics(torch.cat(parts))
        first, second = torch.arange(2 * len(parts[0]), device=parts[0].device).chunk(2)
        return critics.take(first), critics.take(second)

    def _critics(self, features: Tensor) -> Critics:
        f = self.net.condition(features)
        return f if self.modes == 1 else Modes(f, self.modes)

    def at_home(self, actions: Tensor) -> Tensor:
        """1 where mode k's home is the nearest to an action, else 0, of shape (K, B).

        The homes are the first K points of a scrambled Sobol' sequence in [-1, 1]ⁿ.
        """
        nearest = torch.cdist(self.homes, actions).argmin(0)
        return torch.nn.functional.one_hot(nearest, self.modes).mT.to(actions)

    def home_loss(self, q: Tensor, target: Tensor, actions: Tensor) -> Tensor:
        """A tenth of the squared errors of each mode at the actions nearest to its home.

        So a mode learns around its home even if it is nowhere the best one.

        Args:
            q: Q_ik(s, a), shape (E, K, B).
            target: shape (B,) or (E, B).
            actions: scaled, shape (B, n).
        """
        errors = (q - target.unsqueeze(-2)).square()
        return 0.1 * (errors * self.at_home(actions)).mean(-1).sum()


def state_values(critics: Critics) -> Tensor:
    """V_i(s) of dueling critics, of shape (E, B)."""
    assert not isinstance(critics, Modes)
    return -critics.level


def winning(q: Tensor) -> Tensor:
    """Q_i of shape (E, B), from Q_ik of shape (E, K, B); see ``ConcaveCritic``."""
    if q.dim() == 2:
        return q
    mode = q.detach().mean(0, keepdim=True).argmax(1, keepdim=True)
    return q.gather(1, mode.expand(len(q), -1, -1)).squeeze(1)


def widths_of(net_arch: Sequence[int] | dict[str, Sequence[int]]) -> tuple[int, ...]:
    """The widths of the critic in an argument ``net_arch`` of stable-baselines3's policies."""
    if isinstance(net_arch, dict):
        known = {"qf"} <= net_arch.keys() <= {"qf", "pi"}
        require(known, "net_arch", "widths or a dict with those of 'qf'", net_arch)
        return tuple(net_arch["qf"])
    return tuple(net_arch)
