"""The feed-forward network that a convex one is compared with."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from icnn_rl.networks import Encoder
from icnn_rl.structured.losses import LossValue


class FeedForward(nn.Module):
    """A plain network x ↦ n numbers: the same hidden layers, nothing convex.

    Args:
        encoder: the hidden layers.
        outputs: n.
    """

    def __init__(self, encoder: Encoder, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(encoder, nn.Linear(encoder.width, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Shape ``(B, n)``."""
        logits: Tensor = self.layers(x)
        return logits

    def project_(self) -> None:
        """Nothing has a sign to keep."""


def cross_entropy(net: nn.Module, x: Tensor, y: Tensor, start: Tensor | None = None) -> LossValue:
    """The loss of a softmax for targets y on the simplex; it infers nothing, so y is its answer."""
    return LossValue(F.cross_entropy(net(x), y, reduction="none"), y, 1.0, 0.0)
