"""What the critics of an agent say about many actions at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from icnn_rl.agents import ConcaveQ


def mean_q(
    model: ConcaveQ, observations: npt.NDArray[np.float32], actions: npt.NDArray[np.floating]
) -> npt.NDArray[np.float32]:
    """The mean over the critics at actions in the environment's units, shape (count, B).

    Args:
        model: the agent.
        observations: shape (B, m).
        actions: shape (count, B, n).
    """
    low, high = model.action_space.low, model.action_space.high
    scaled = torch.as_tensor(2 * (actions - low) / (high - low) - 1, dtype=torch.float32)
    obs = torch.as_tensor(observations)
    with torch.no_grad():
        parts = [
            model.policy.q(obs.repeat(len(a), 1), a.flatten(0, 1)).mean(0)
            for a in scaled.split(1000)
        ]
    return torch.cat(parts).view(scaled.shape[:2]).numpy()
