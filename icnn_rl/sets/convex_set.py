"""A closed convex set, and the intersection of two."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, final

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from icnn_rl.sets.canonical import CanonicalSet


class ConvexSet(ABC):
    """A closed convex set 𝒴 ⊂ ℝⁿ, the same for every sample or one for each.

    A new kind of set has to define ``canonical`` alone. Arguments named ``like`` are tensors of
    shape ``(*batch, n)`` that give the batch, the dimension, the precision and the device.

    Attributes:
        closed_form: whether ``support`` and ``project`` are closed-form tensor expressions, which
            gradients can flow through.
    """

    closed_form: ClassVar[bool] = False

    @property
    def batch_shape(self) -> torch.Size:
        """The batch that the numbers of the set are for; empty where all samples share them."""
        return torch.Size()

    @abstractmethod
    def canonical(self, like: Tensor) -> CanonicalSet:
        """Bounds, inequalities, equations and balls, as solvers read them.

        Raises:
            ValueError: the set does not fit points of the shape of ``like``.
        """

    def bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds of the shape of ``like``; infinite where there are none."""
        return self.canonical(like).bounds(like)

    def support(self, c: Tensor) -> Tensor:
        """max { cᵀy : y ∈ 𝒴 }, or a little more, for c of shape ``(*batch, n)``.

        Without a closed form it is an upper bound from multipliers, which rounding may leave up to
        1e-4 · (1 + ‖c‖ · the diameter of 𝒴) too high, mostly 1e-9, and has no gradient.
        """
        return self.canonical(c).support(c)

    def project(self, y: Tensor) -> Tensor:
        """The point of 𝒴 nearest to y in the Euclidean norm, for y of shape ``(*batch, n)``.

        Gradients flow through it where the form is closed, and for an ``L1Ball`` in a ``Box`` or
        alone; elsewhere the result is a constant.
        """
        return self.canonical(y).project(y)

    def interior_point(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """A point well inside, of the shape of ``like``, and where 𝒴 is empty, ``batch``."""
        return self.canonical(like).interior_point(like)

    def contains(self, y: Tensor, tol: float = 1e-6) -> Tensor:
        """Whether y lies within ``tol`` of 𝒴, of shape ``batch``."""
        distance: Tensor = torch.linalg.vector_norm(y - self.project(y), dim=-1)
        return distance <= tol

    def __eq__(self, other: object) -> bool:
        """Whether the other is of the same kind and made of the same numbers."""
        return type(other) is type(self) and _same(
            tuple(vars(self).values()), tuple(vars(other).values())
        )

    def __hash__(self) -> int:
        return hash(type(self))

    def __and__(self, other: ConvexSet) -> ConvexSet:
        """The intersection of two sets."""
        return Intersection(self, other)


@final
class Intersection(ConvexSet):
    """{ y : y ∈ left, y ∈ right }; made by ``left & right``."""

    def __init__(self, left: ConvexSet, right: ConvexSet) -> None:
        self.left = left
        self.right = right

    def __repr__(self) -> str:
        return f"{self.left} & {self.right}"

    @property
    def batch_shape(self) -> torch.Size:
        return torch.Size(torch.broadcast_shapes(self.left.batch_shape, self.right.batch_shape))

    def canonical(self, like: Tensor) -> CanonicalSet:
        return self.left.canonical(like).meet(self.right.canonical(like))


def _same(a: object, b: object) -> bool:
    """Whether two parts of sets are equal: sets, numbers, tensors, arrays, or tuples of these."""
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, Tensor | np.ndarray) and isinstance(b, Tensor | np.ndarray):
        a, b = torch.as_tensor(a), torch.as_tensor(b)
        return (a.device, a.shape) == (b.device, b.shape) and bool((a == b).all())
    return type(a) is type(b) and a == b
