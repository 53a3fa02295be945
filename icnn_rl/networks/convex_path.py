"""The weights on the way from y to f: free on y, non-negative on z."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from icnn_rl.networks.activations import activation
from icnn_rl.networks.initialization import NonNegativeInit

NonNegativity = Literal["projection", "softplus"]


class ConvexPath(nn.Module):
    """Weights Wₖᶻ ≥ 0 and Wₖʸ of the layers zₖ₊₁ = σ(Wₖᶻ zₖ + Wₖʸ y + bₖ), k = 0 … K.

    Args:
        dim: n, the number of convex inputs.
        widths: n₁ … n_K, widths of the hidden layers; an output of width one is added.
        activation_name: the name of σ.
        members: E, the number of networks held side by side.
        nonnegativity: ``projection`` clamps Wᶻ in ``project_`` after a step of the optimiser;
            ``softplus`` stores its inverse softplus, so that no step can leave the cone.

    Raises:
        ValueError: a width or the dimension is below one, or a name is unknown.
    """

    def __init__(
        self,
        dim: int,
        widths: tuple[int, ...],
        activation_name: str,
        members: int,
        nonnegativity: NonNegativity,
    ) -> None:
        super().__init__()
        if not widths or min(dim, members, *widths) < 1:
            raise ValueError(
                f"convex: expected at least one hidden layer and sizes >= 1; got y_dim {dim}, "
                f"convex {widths}, ensemble {members}"
            )
        if nonnegativity not in ("projection", "softplus"):
            raise ValueError(
                f"nonnegativity: expected 'projection' or 'softplus', got {nonnegativity!r}"
            )
        self.dim = dim
        self.widths = tuple(widths)
        self.activation = activation(activation_name)
        self.nonnegativity = nonnegativity
        ends = (*self.widths, 1)
        self.raw_z = nn.ParameterList(
            torch.empty(members, a, b) for a, b in zip(self.widths, ends[1:], strict=True)
        )
        self.raw_y = nn.ParameterList(torch.empty(members, dim, b) for b in ends)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw Wᶻ as Hoedt & Klambauer do and Wʸ uniformly within ±1/√n."""
        for w in self.raw_z:
            NonNegativeInit.for_fan_in(w.shape[-2], self.activation.leak).fill_(w)
            if self.nonnegativity == "softplus":
                w.add_(torch.log(-torch.expm1(-w)))
        for w in self.raw_y:
            w.uniform_(-1 / math.sqrt(self.dim), 1 / math.sqrt(self.dim))

    def bias_init(self, k: int) -> float:
        """The bias that centres layer k, given that its weights on z are positive."""
        if k == 0:
            return 0.0
        return NonNegativeInit.for_fan_in(self.widths[k - 1], self.activation.leak).bias

    def weight_z(self) -> tuple[Tensor, ...]:
        """Wₖᶻ ≥ 0, transposed, k = 1 … K, each ``(E, nₖ, nₖ₊₁)``."""
        if self.nonnegativity == "softplus":
            return tuple(F.softplus(w) for w in self.raw_z)
        return tuple(self.raw_z)

    def weight_y(self) -> tuple[Tensor, ...]:
        """Wₖʸ, transposed, k = 0 … K, each ``(E, n, nₖ₊₁)``."""
        return tuple(self.raw_y)

    @torch.no_grad()
    def project_(self) -> None:
        """P₊: put the weights on z back into the cone; nothing to do under ``softplus``."""
        if self.nonnegativity == "projection":
            torch._foreach_clamp_min_(list(self.raw_z), 0.0)
