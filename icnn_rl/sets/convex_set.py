"""A closed convex set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from icnn_rl.sets.ball import Ball

Constraint = tuple[Tensor, Tensor]
"""A matrix, ``(rows, n)`` or ``(*batch, rows, n)``, and a right-hand side, ``(*batch, rows)``."""


class ConvexSet(ABC):
    """A closed convex set 𝒴 ⊂ ℝⁿ, the same for every sample or one for each.

    Every set says what it is by ``bounds``, ``inequalities``, ``equations``, ``budgets`` and
    ``balls``, the form that the solvers work with. Arguments named ``like`` are tensors of shape
    ``(*batch, n)`` that give the batch, the dimension, the precision and the device.
    """

    @abstractmethod
    def bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds of the shape of ``like``; infinite where there are none."""

    def own_bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Those known without a linear program a sample; they may contradict each other."""
        return self.bounds(like)

    def inequalities(self, like: Tensor) -> Constraint | None:
        """A and b of A y ≤ b."""
        return None

    def equations(self, like: Tensor) -> Constraint | None:
        """E and d of E y = d."""
        return None

    def budgets(self, like: Tensor) -> Constraint | None:
        """W ≥ 0 and b of W |y| ≤ b."""
        return None

    @property
    def balls(self) -> tuple[Ball, ...]:
        """Balls of the Euclidean norm in which the set lies, besides the other constraints."""
        return ()

    def without_balls(self) -> ConvexSet:
        """The set with the smallest box around each of ``balls`` in its place."""
        return self

    @abstractmethod
    def support(self, c: Tensor) -> Tensor:
        """max { cᵀy : y ∈ 𝒴 }, or a little more, for c of shape ``(*batch, n)``."""

    @abstractmethod
    def project(self, y: Tensor) -> Tensor:
        """The point of 𝒴 nearest to y in the Euclidean norm, for y of shape ``(*batch, n)``."""

    @abstractmethod
    def interior(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """A point well inside, of the shape of ``like``, and where 𝒴 is empty, ``batch``."""

    def center(self, like: Tensor) -> Tensor:
        """A point well inside, where a solver may start, of the shape of ``like``."""
        return self.interior(like)[0]

    def contains(self, y: Tensor, tol: float = 1e-6) -> Tensor:
        """Whether y lies within ``tol`` of 𝒴, of shape ``batch``."""
        distance: Tensor = torch.linalg.vector_norm(y - self.project(y), dim=-1)
        return distance <= tol

    def __and__(self, other: ConvexSet) -> ConvexSet:
        """The intersection of two sets."""
        from icnn_rl.sets.intersection import Intersection  # itself a ConvexSet

        return Intersection(self, other)
