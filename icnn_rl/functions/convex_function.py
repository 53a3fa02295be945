"""Batches of convex functions of y, and the operations that keep convexity.

``value`` takes points of shape ``(*batch_shape, dim)``, or what broadcasts to it. Gradients and
Hessians are closed forms without an autograd tape; all results are differentiable with respect to
the tensors that the function is made of.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from copy import copy, deepcopy
from typing import Self, final

import numpy as np
import torch
from torch import Tensor

from icnn_rl.functions.linear_program import Array, LinearProgram, to_array


class ConvexFunction(ABC):
    """A batch of convex functions f: ℝⁿ → ℝ.

    Attributes:
        dim: n, or None for a term that takes any n.
        batch_shape: shape of the batch; empty for a single function.
        like: a tensor with the dtype and device of the function, None for a constant term.
        smooth: whether ``hessian`` exists.
        piecewise_linear: whether ``to_lp`` exists.
        strong_convexity: a γ ≥ 0, one number or one per function, such that f - γ/2 ‖y‖² is convex.
    """

    dim: int | None
    batch_shape: torch.Size
    like: Tensor | None
    smooth: bool
    piecewise_linear: bool = False
    strong_convexity: Tensor | float = 0.0

    @abstractmethod
    def value(self, y: Tensor) -> Tensor:
        """f(y), of shape ``batch_shape``."""

    @abstractmethod
    def value_and_gradient(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """f(y) and a subgradient, of shapes ``batch_shape`` and ``(*batch_shape, n)``."""

    def hessian(self, y: Tensor) -> Tensor:
        """∇²f(y), of shape ``(*batch_shape, n, n)``.

        Raises:
            TypeError: the function is not smooth.
        """
        raise TypeError(f"{type(self).__name__} is not smooth: it has no Hessian")

    @abstractmethod
    def take(self, index: Tensor) -> ConvexFunction:
        """The functions at ``index`` of the last batch axis."""

    @final
    def to_lp(self, index: tuple[int, ...]) -> LinearProgram:
        """One function of the batch as a linear program in (y, auxiliaries).

        Args:
            index: its place in the batch, or in a batch that this one broadcasts to.

        Raises:
            TypeError: the function is not piecewise linear.
        """
        if not self.piecewise_linear:
            name = type(self).__name__
            raise TypeError(f"{name} is not piecewise linear: it has no linear program")
        return self._to_lp(_own_index(index, self.batch_shape))

    def _to_lp(self, index: tuple[int, ...]) -> LinearProgram:
        """``to_lp`` for an index into the function's own batch."""
        raise NotImplementedError

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """A copy with numbers of its own, without the graph of those computed from others."""
        made = copy(self)
        memo[id(self)] = made
        vars(made).update({k: deepcopy(_detached(v), memo) for k, v in vars(self).items()})
        return made

    def __add__(self, other: ConvexFunction) -> ConvexFunction:
        """f + g."""
        return Sum(self, other)

    def mean(self, axis: int = 0) -> ConvexFunction:
        """The mean over the leading (ensemble) axis."""
        return Mean(self, axis)

    def max(self, axis: int = 0) -> ConvexFunction:
        """The pointwise maximum over the leading (ensemble) axis."""
        return Max(self, axis)

    def restrict(self, mask: Tensor, values: Tensor) -> Restriction:
        """f with the entries of y under ``mask`` held at ``values``; see ``Restriction``."""
        return Restriction(self, mask, values)

    def affine(self, A: Tensor, b: Tensor | float = 0.0) -> ConvexFunction:
        """u ↦ f(A u + b), for A of shape ``(n, m)`` or ``(*batch_shape, n, m)``."""
        return Affine(self, A, b)


def _detached(part: object) -> object:
    """A part of a function with its computed tensors, also those in tuples, as plain numbers."""
    if isinstance(part, tuple):
        return tuple(map(_detached, part))
    return part.detach() if isinstance(part, Tensor) and not part.is_leaf else part


def common_shape(*shapes: tuple[int, ...]) -> torch.Size:
    """The shape that all of ``shapes`` broadcast to."""
    different = {tuple(shape) for shape in shapes if shape}
    if len(different) <= 1:  # torch takes as long as a layer does
        return torch.Size(*different)
    return torch.Size(torch.broadcast_shapes(*different))


def take_rows(t: Tensor, index: Tensor, trailing: int = 1) -> Tensor:
    """Rows of the batch axis, ``trailing`` axes before the end, unless all share one row."""
    axis = t.dim() - 1 - trailing
    return t if axis < 0 or t.shape[axis] == 1 else t.index_select(axis, index)


def _own_index(index: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The index into a batch of ``shape`` for an index into one that it broadcasts to."""
    last = index[len(index) - len(shape) :]
    return tuple(0 if size == 1 else i for i, size in zip(last, shape, strict=True))


def entry(t: Tensor, index: tuple[int, ...], trailing: int = 1) -> Array:
    """Entry ``index`` of a tensor of batch axes, which may broadcast, and ``trailing`` axes."""
    return to_array(t[_own_index(index, t.shape[: t.dim() - trailing])])


@final
class Sum(ConvexFunction):
    """f(y) = g(y) + h(y)."""

    def __init__(self, left: ConvexFunction, right: ConvexFunction) -> None:
        n, m = left.dim, right.dim
        if None not in (n, m) and n != m:
            raise ValueError(f"f + g: expected functions of the same dimension, got {n} and {m}")
        self.left, self.right = left, right
        self.dim = m if n is None else n
        self.batch_shape = common_shape(left.batch_shape, right.batch_shape)
        self.like = right.like if left.like is None else left.like
        self.smooth = left.smooth and right.smooth
        self.piecewise_linear = left.piecewise_linear and right.piecewise_linear
        self.strong_convexity = left.strong_convexity + right.strong_convexity

    def value(self, y: Tensor) -> Tensor:
        return self.left.value(y) + self.right.value(y)

    def value_and_gradient(self, y: Tensor) -> tuple[Tensor, Tensor]:
        (v, g), (w, h) = self.left.value_and_gradient(y), self.right.value_and_gradient(y)
        return v + w, g + h

    def hessian(self, y: Tensor) -> Tensor:
        return self.left.hessian(y) + self.right.hessian(y)

    def take(self, index: Tensor) -> Sum:
        return Sum(self.left.take(index), self.right.take(index))

    def _to_lp(self, index: tuple[int, ...]) -> LinearProgram:
        return LinearProgram.total([self.left.to_lp(index), self.right.to_lp(index)])


class _Derived(ConvexFunction):
    """A function made of one other, with its attributes."""

    def __init__(self, f: ConvexFunction, batch_shape: torch.Size) -> None:
        self.f = f
        self.batch_shape = batch_shape
        self.dim, self.like = f.dim, f.like
        self.smooth, self.piecewise_linear = f.smooth, f.piecewise_linear


class _Reduction(_Derived):
    """A function made of the members of an ensemble, the leading batch axis."""

    def __init__(self, f: ConvexFunction, axis: int = 0) -> None:
        if axis != 0 or len(f.batch_shape) < 2:
            raise ValueError(
                f"axis: expected 0, the ensemble axis of a batch of shape (E, B); got {axis} for "
                f"a batch of shape {tuple(f.batch_shape)}"
            )
        super().__init__(f, f.batch_shape[1:])
        gamma = f.strong_convexity
        if isinstance(gamma, Tensor) and gamma.dim() > 1:
            gamma = gamma.amin(0)  # the smallest of the members holds for mean and maximum
        self.strong_convexity = gamma

    def take(self, index: Tensor) -> Self:
        return type(self)(self.f.take(index))

    def _members(self, index: tuple[int, ...]) -> list[LinearProgram]:
        return [self.f.to_lp((e, *index)) for e in range(self.f.batch_shape[0])]


@final
class Mean(_Reduction):
    """f(y) = 1/E Σₑ gₑ(y)."""

    def value(self, y: Tensor) -> Tensor:
        return self.f.value(y).mean(0)

    def value_and_gradient(self, y: Tensor) -> tuple[Tensor, Tensor]:
        values, gradients = self.f.value_and_gradient(y)
        return values.mean(0), gradients.mean(0)

    def hessian(self, y: Tensor) -> Tensor:
        return self.f.hessian(y).mean(0)

    def _to_lp(self, index: tuple[int, ...]) -> LinearProgram:
        return LinearProgram.total(self._members(index)).scaled(1 / self.f.batch_shape[0])


@final
class Max(_Reduction):
    """f(y) = maxₑ gₑ(y)."""

    def __init__(self, f: ConvexFunction, axis: int = 0) -> None:
        super().__init__(f, axis)
        self.smooth = False

    def value(self, y: Tensor) -> Tensor:
        return self.f.value(y).amax(0)

    def value_and_gradient(self, y: Tensor) -> tuple[Tensor, Tensor]:
        values, gradients = self.f.value_and_gradient(y)
        value, member = values.max(0)
        chosen = member[None, ..., None].expand(1, *gradients.shape[1:])
        return value, gradients.gather(0, chosen).squeeze(0)

    def _to_lp(self, index: tuple[int, ...]) -> LinearProgram:
        return LinearProgram.maximum(self._members(index))


@final
class Restriction(_Derived):
    """f with some entries of y fixed: y ↦ f(where(mask, values, y)).

    The dimension stays n, so the fixed entries may differ from function to function; the value
    does not depend on them. ``complete`` puts them in.
    """

    def __init__(self, f: ConvexFunction, mask: Tensor, values: Tensor) -> None:
        for name, t in (("mask", mask), ("values", values)):
            if t.shape[-1] != f.dim:
                raise ValueError(
                    f"{name}: expected a last axis of {f.dim}, the dimension of the function; "
                    f"got shape {tuple(t.shape)}"
                )
        if mask.dtype != torch.bool:
            raise ValueError(f"mask: expected a boolean tensor, got {mask.dtype}")
        super().__init__(f, common_shape(f.batch_shape, mask.shape[:-1], values.shape[:-1]))
        self.mask, self.values = mask, values

    def complete(self, y: Tensor) -> Tensor:
        """y with the fixed entries at their values."""
        return torch.where(self.mask, self.values, y)

    def value(self, y: Tensor) -> Tensor:
        return self.f.value(self.complete(y))

    def value_and_gradient(self, y: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = self.f.value_and_gradient(self.complete(y))
        return value, gradient.masked_fill(self.mask, 0.0)

    def hessian(self, y: Tensor) -> Tensor:
        fixed = self.mask.unsqueeze(-1) | self.mask.unsqueeze(-2)
        return self.f.hessian(self.complete(y)).masked_fill(fixed, 0.0)

    def take(self, index: Tensor) -> Restriction:
        mask, values = take_rows(self.mask, index), take_rows(self.values, index)
        return Restriction(self.f.take(index), mask, values)

    def _to_lp(self, index: tuple[int, ...]) -> LinearProgram:
        mask, values = entry(self.mask, index), entry(self.values, index)
        return self.f.to_lp(index).substituted(np.diag(1 - mask), np.where(mask, values, 0.0))


@final
class Affine(_Derived):
    """u ↦ f(A u + b)."""

    def __init__(self, f: ConvexFunction, A: Tensor, b: Tensor | float) -> None:
        if A.dim() < 2 or A.shape[-2] != f.dim:
            raise ValueError(
                f"A: expected shape ({f.dim}, m), rows matching the dimension of the function; "
                f"got {tuple(A.shape)}"
            )
        b = b if isinstance(b, Tensor) else A.new_tensor(b)
        b = b.expand(A.shape[-2]) if b.dim() == 0 else b
        if b.shape[-1] != A.shape[-2]:
            raise ValueError(
                f"b: expected a number or a last axis of {A.shape[-2]}, the dimension of the "
                f"function; got shape {tuple(b.shape)}"
            )
        super().__init__(f, common_shape(f.batch_shape, A.shape[:-2], b.shape[:-1]))
        self.A, self.b = A, b
        self.dim = A.shape[-1]
        self.like = A if f.like is None else f.like

    def image(self, u: Tensor) -> Tensor:
        """y = A u + b."""
        return (self.A @ u.unsqueeze(-1)).squeeze(-1) + self.b

    def value(self, y: Tensor) -> Tensor:
        return self.f.value(self.image(y))

    def value_and_gradient(self, y: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = self.f.value_and_gradient(self.image(y))
        return value, (gradient.unsqueeze(-2) @ self.A).squeeze(-2)

    def hessian(self, y: Tensor) -> Tensor:
        return self.A.mT @ self.f.hessian(self.image(y)) @ self.A

    def take(self, index: Tensor) -> Affine:
        return Affine(self.f.take(index), take_rows(self.A, index, 2), take_rows(self.b, index))

    def _to_lp(self, index: tuple[int, ...]) -> LinearProgram:
        return self.f.to_lp(index).substituted(entry(self.A, index, 2), entry(self.b, index))


@final
class Modes(_Derived):
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
        super().__init__(f, torch.Size([shape[0] // count, count, *shape[1:]]))
        self.count = count

    def _flat(self, y: Tensor) -> Tensor:
        axes = len(self.f.batch_shape)
        if y.dim() <= axes:
            return y  # shared by all members
        return y.expand(*self.batch_shape[:2], *y.shape[-axes:]).flatten(0, 1)

    def _grouped(self, t: Tensor) -> Tensor:
        return t.reshape(*self.batch_shape[:2], *t.shape[1:])

    def value(self, y: Tensor) -> Tensor:
        return self._grouped(self.f.value(self._flat(y)))

    def value_and_gradient(self, y: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = self.f.value_and_gradient(self._flat(y))
        return self._grouped(value), self._grouped(gradient)

    def hessian(self, y: Tensor) -> Tensor:
        return self._grouped(self.f.hessian(self._flat(y)))

    def take(self, index: Tensor) -> Modes:
        return Modes(self.f.take(index), self.count)

    def _to_lp(self, index: tuple[int, ...]) -> LinearProgram:
        member, mode, *rest = index
        return self.f.to_lp((member * self.count + mode, *rest))
