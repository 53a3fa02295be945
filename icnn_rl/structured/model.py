"""A network and the set that its answers come from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol, final

import torch
from torch import Tensor

from icnn_rl.functions import ConvexFunction, quadratic
from icnn_rl.sets import ConvexSet
from icnn_rl.solvers import Solution, Solver, minimize


class Network(Protocol):
    """What a model needs of a network; PICNN, FICNN and their convolutional forms have it."""

    def condition(self, x: Tensor, /) -> ConvexFunction:
        """A batch of convex functions of y."""

    def project_(self) -> None:
        """P₊."""


@final
@dataclass(frozen=True)
class StructuredModel:
    """Prediction as convex optimisation.

        ŷ(x) = argmin { f̃(x, y) : y ∈ 𝒴 },      f̃(x, y) = f(x, y) + γ/2 ‖y‖²

    Args:
        net: the network f, convex in y.
        over: the set 𝒴 of answers.
        curvature: γ ≥ 0; positive where answers are continuous.
        tol: certified gap, in units of f, at which an answer is good enough.
        max_evaluations: of f, per answer.
        solver: as for ``minimize``.

    Source: Amos & Kolter, "Input-Convex Deep Networks", ICLR workshop 2016.
    """

    net: Network
    over: ConvexSet
    curvature: float = 0.0
    tol: float = 1e-3
    max_evaluations: int = 200
    solver: str | Solver = "auto"

    def energy(self, x: Tensor) -> ConvexFunction:
        """f̃(x, ·), a batch of convex functions."""
        return self.curved(self.net.condition(x))

    def curved(self, f: ConvexFunction) -> ConvexFunction:
        """f + γ/2 ‖·‖²."""
        if self.curvature == 0.0:
            return f
        assert f.dim is not None
        assert f.like is not None
        return f + quadratic(self.curvature, f.like.new_zeros(f.dim))

    def solve(self, f: ConvexFunction, start: Tensor | None = None, **options: Any) -> Solution:
        """The minimisers of f over 𝒴; ``options`` override the model's settings."""
        settings: dict[str, Any] = {
            "tol": self.tol,
            "max_evaluations": self.max_evaluations,
            "solver": self.solver,
        }
        return minimize(f, self.over, start=start, **(settings | options))

    @torch.no_grad()
    def infer(
        self,
        x: Tensor,
        batch_size: int = 1024,
        regularizer: ConvexFunction | None = None,
    ) -> Solution:
        """Answers ŷ with their certified gaps; ``converged`` says which reached ``tol``.

        Args:
            x: inputs, ``(N, …)``, as many as memory holds.
            batch_size: inputs per batch of the solver.
            regularizer: a function of y that is added to f̃, such as an entropy.
        """

        def energy(rows: Tensor) -> ConvexFunction:
            f = self.energy(rows)
            return f if regularizer is None else f + regularizer

        parts = [self.solve(energy(rows)) for rows in x.split(batch_size)]
        if len(parts) == 1:
            return parts[0]
        joined = {name: torch.cat([getattr(p, name) for p in parts]) for name in vars(parts[0])}
        return replace(parts[0], **joined)
