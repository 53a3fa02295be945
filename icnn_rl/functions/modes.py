"""An ensemble of functions in groups, each group the modes of one function that is not convex."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from icnn_rl.functions.convex_function import ConvexFunction, Derived, own_index

if TYPE_CHECKING:
    from icnn_rl.functions.linear_program import LinearProgram


@final
class Modes(Derived):
    """Functions f_ik, i = 1..E, k = 1..K, from an ensemble of E K members in the order of i.

    The batch shape ``(E K, *batch)`` becomes ``(E, K, *batch)``, so that ``mean(0)`` is over the
    members of each mode, and ``minimize_modes`` can follow.

    Args:
        f: the ensemble.
        count: K.

    Raises:
        ValueError: f has no ensemble axis, or K does not divide it.
    """

    def __init__(self, f: ConvexFunction, count: int) -> None:
        shape = f.batch_shape
        if count < 1 or len(shape) < 2 or shape[0] % count:
            raise ValueError(
                f"count: expected a divisor of the ensemble axis, the first of two; got {count} "
                f"for a batch of shape {tuple(shape)}"
            )
        super().__init__(f)
        self._sizes = (shape[0] // count, count)

    @property
    def batch_shape(self) -> torch.Size:
        return torch.Size([*self._sizes, *self.f.batch_shape[1:]])

    def _flat(self, y: Tensor) -> Tensor:
        axes = len(self.f.batch_shape)
        if y.dim() <= axes:
            return y  # shared by all members
        return y.expand(*self._sizes, *y.shape[-axes:]).flatten(0, 1)

    def _grouped(self, t: Tensor) -> Tensor:
        return t.reshape(*self._sizes, *t.shape[1:])

    def value(self, y: Tensor) -> Tensor:
        return self._grouped(self.f.value(self._flat(y)))

    def value_and_gradient(self, y: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = self.f.value_and_gradient(self._flat(y))
        return self._grouped(value), self._grouped(gradient)

    def hessian(self, y: Tensor) -> Tensor:
        return self._grouped(self.f.hessian(self._flat(y)))

    def take(self, index: Tensor) -> Modes:
        return Modes(self.f.take(index), self._sizes[1])

    def to_lp(self, index: tuple[int, ...]) -> LinearProgram:
        member, mode, *rest = own_index(index, self.batch_shape)
        return self.f.to_lp((member * self._sizes[1] + mode, *rest))
