"""The weights on the way from y to f: free on y, non-negative on z."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from icnn_rl.networks.activations import activation
from icnn_rl.networks.initialization import NonNegativeInit
from icnn_rl.networks.non_negative import NonNegativeWeights, NonNegativity


class ConvexPath(NonNegativeWeights):
    """Weights Wₖᶻ ≥ 0 and Wₖʸ of the layers zₖ₊₁ = σ(Wₖᶻ zₖ + Wₖʸ y + bₖ), k = 0 … K.

    ``weight_z()`` gives Wₖᶻ, transposed, k = 1 … K, each ``(E, nₖ, nₖ₊₁)``.

    Args:
        dim: n, the number of convex inputs.
        widths: n₁ … n_K, widths of the hidden layers; an output of width one is added.
        activation_name: the name of σ.
        members: E, the number of networks held side by side.
        nonnegativity: how Wᶻ ≥ 0 is kept, see ``NonNegativeWeights``.

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
        if not widths or min(dim, members, *widths) < 1:
            raise ValueError(
                f"convex: expected at least one hidden layer and sizes >= 1; got y_dim {dim}, "
                f"convex {widths}, ensemble {members}"
            )
        ends = (*widths, 1)
        super().__init__([(members, a, b) for a, b in pairwise(ends)], nonnegativity)
        self.dim = dim
        self.widths = tuple(widths)
        self.activation = activation(activation_name)
        self.raw_y = nn.ParameterList(torch.empty(members, dim, b) for b in ends)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw Wᶻ as Hoedt & Klambauer do and Wʸ uniformly within ±1/√n."""
        self.draw_(NonNegativeInit.for_fan_in(n, self.activation.leak) for n in self.widths)
        for w in self.raw_y:
            w.uniform_(-1 / math.sqrt(self.dim), 1 / math.sqrt(self.dim))

    def bias_init(self, k: int) -> float:
        """The bias that centres layer k, given that its weights on z are positive."""
        if k == 0:
            return 0.0
        return NonNegativeInit.for_fan_in(self.widths[k - 1], self.activation.leak).bias

    def weight_y(self) -> tuple[Tensor, ...]:
        """Wₖʸ, transposed, k = 0 … K, each ``(E, n, nₖ₊₁)``."""
        return tuple(self.raw_y)
