"""Base classes of networks: fixing x, evaluating f(x, y), projecting weights, layers on x."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from icnn_rl.functions import ConvexFunction
from icnn_rl.networks.checks import Shape, require_batch_of, require_size, require_widths
from icnn_rl.networks.convex_path import NonNegativeWeights, uniform_
from icnn_rl.networks.normalization import Norm, normalization, reset_norms


class ConvexNetwork(nn.Module, ABC):
    """A network f(x, y) that is convex in y."""

    @abstractmethod
    def condition(self, x: Tensor) -> ConvexFunction:
        """Run the layers on x, once, and leave a batch of convex functions of y.

        Args:
            x: shape ``(B, x_dim)`` or ``(B, *x_shape)``, or what an encoder takes.

        Returns:
            A convex function with ``batch_shape`` ``(B,)``, or ``(E, B)`` for an ensemble.

        Raises:
            ValueError: x has another shape.
        """

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """f(x, y), of shape ``(B,)``, or ``(E, B)`` for an ensemble; images y may be flat."""
        return self.condition(x).value(y.flatten(1) if y.dim() == 4 else y)

    def project_(self) -> None:
        """P₊: put the weights Wᶻ back into the cone; call it after every step of an optimiser."""
        for module in self.children():
            if isinstance(module, NonNegativeWeights):
                module.project_()


class FullyConvexNetwork(ConvexNetwork):
    """A network that is convex in x and y together, so that either can be fixed."""

    x_shape: Shape
    y_shape: Shape

    @abstractmethod
    def function(self) -> ConvexFunction:
        """The network as one convex function of (y, x), flat, y first."""

    @abstractmethod
    def _of_y(self, x: Tensor) -> ConvexFunction:
        """f(x, ·)."""

    @abstractmethod
    def _of_x(self, y: Tensor) -> ConvexFunction:
        """f(·, y)."""

    def condition(self, x: Tensor | None = None, *, y: Tensor | None = None) -> ConvexFunction:
        """Fix x, or y, and leave a batch of convex functions of the other, flat.

        Args:
            x: shape ``(B, *x_shape)``.
            y: shape ``(B, *y_shape)``.

        Returns:
            A convex function with ``batch_shape`` ``(B,)``, or ``(E, B)`` for an ensemble.

        Raises:
            ValueError: not exactly one is given, or it has another shape.
        """
        if x is not None and y is None:
            require_batch_of("x", x, self.x_shape)
            return self._of_y(x)
        if y is not None and x is None:
            require_batch_of("y", y, self.y_shape)
            return self._of_x(y)
        raise ValueError("x, y: expected one of them, the one to be fixed")


class ContextNetwork(ConvexNetwork):
    """A network that computes the coefficients of a function of y from x.

        uₗ₊₁ = ReLU(N(W̃ₗ uₗ + b̃ₗ)),      u₀ = x,      l = 0 … L

    One matrix product for each level uₗ gives the next level and the coefficients that uₗ feeds.
    """

    def __init__(
        self, x_dim: int, y_dim: int, context: Sequence[int], ensemble: int | None
    ) -> None:
        super().__init__()
        self.members = 1 if ensemble is None else ensemble
        require_size("x_dim", x_dim)
        require_size("y_dim", y_dim)
        require_size("ensemble", self.members)
        require_widths("context", context)
        self.x_dim, self.y_dim = x_dim, y_dim
        self.context, self.ensemble = tuple(context), ensemble

    def _add_levels(self, outputs: Sequence[Sequence[int]], norm: Norm) -> None:
        """Make the layers; ``outputs`` has the lengths of what each level u₀ … u_L feeds."""
        self._sizes = [[w, *own] for w, own in zip((*self.context, 0), outputs, strict=True)]
        self.weight = nn.ParameterList(
            torch.empty(self.members, fan_in, sum(sizes))
            for fan_in, sizes in zip((self.x_dim, *self.context), self._sizes, strict=True)
        )
        self.bias = nn.ParameterList(torch.empty(self.members, 1, sum(s)) for s in self._sizes)
        self.norm = nn.ModuleList(normalization(norm, self.members, w) for w in self.context)

    def reset_parameters(self) -> None:
        """Draw weights and biases uniformly within ±1/√fan-in."""
        for weight, bias in zip(self.weight, self.bias, strict=True):
            for t in (weight, bias):
                uniform_(t, weight.shape[-2])
        reset_norms(self.norm)

    def _split(self, level: int, t: Tensor) -> tuple[Tensor, ...]:
        """The next level, of width 0 after the last, and the outputs of this one."""
        sizes = self._sizes[level]
        return t.split(sizes, -1) if len(sizes) > 1 else (t,)

    def _outputs(self, x: Tensor) -> list[list[Tensor]]:
        """The outputs of all levels, each of shape ``(E, B, length)``."""
        require_batch_of("x", x, (self.x_dim,))
        u = x.expand(self.members, *x.shape)
        outputs = []
        for level, (weight, bias) in enumerate(zip(self.weight, self.bias, strict=True)):
            following, *own = self._split(level, torch.baddbmm(bias, u, weight))
            outputs.append(own)
            if level < len(self.context):
                u = self.norm[level](following).relu()
        return outputs
