"""A batch of convex functions of y, and the operations that keep convexity.

A function holds a batch of shape ``batch_shape``; ``value`` takes points of shape
``(*batch_shape, dim)``, or anything that broadcasts to it, and returns one number per function.
Everything is closed form: nothing here needs an autograd tape, yet ``value`` is differentiable with
respect to whatever the function was made of.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Self, final

import torch
from torch import Tensor

if TYPE_CHECKING:  # it loads scipy.sparse, which only the linear programs need
    from icnn_rl.functions.linear_program import Array, LinearProgram


class ConvexFunction(ABC):
    """A batch of convex functions f: ℝⁿ → ℝ."""

    @property
    @abstractmethod
    def dim(self) -> int | None:
        """n, or None for a term that takes any n."""

    @property
    @abstractmethod
    def batch_shape(self) -> torch.Size:
        """Shape of the batch; empty for a single function."""

    @property
    @abstractmethod
    def like(self) -> Tensor | None:
        """A tensor with the dtype and device of the function, None for a constant term."""

    @property
    @abstractmethod
    def smooth(self) -> bool:
        """Whether ``hessian`` exists."""

    @property
    def piecewise_linear(self) -> bool:
        """Whether ``to_lp`` exists."""
        return False

    @property
    def strong_convexity(self) -> Tensor | float:
        """A γ ≥ 0, one number or one per function, such that f - γ/2 ‖y‖² is convex."""
        return 0.0

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

    def to_lp(self, index: tuple[int, ...]) -> LinearProgram:
        """The function at ``index`` of the batch as a linear program in (y, auxiliaries).

        Raises:
            TypeError: the function is not piecewise linear.
        """
        raise TypeError(f"{type(self).__name__} is not piecewise linear: it has no linear program")

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


def common_shape(*shapes: tuple[int, ...]) -> torch.Size:
    """The shape that all of ``shapes`` broadcast to."""
    different = {tuple(shape) for shape in shapes if shape}
    if len(different) <= 1:  # torch takes as long as a layer does
        return torch.Size(*different)
    return torch.Size(torch.broadcast_shapes(*different))


def take_rows(t: Tensor, index: Tensor, axis: int) -> Tensor:
    """Rows of ``t`` along its batch axis, unless it is shared by the whole batch."""
    return t if t.dim() < -axis or t.shape[axis] == 1 else t.index_select(axis, index)


def own_index(index: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The index into a batch of ``shape`` for an index into one that it broadcasts to."""
    trailing = index[len(index) - len(shape) :]
    return tuple(0 if size == 1 else i for i, size in zip(trailing, shape, strict=True))


def entry(t: Tensor, index: tuple[int, ...], trailing: int = 1) -> Array:
    """Entry ``index`` of a tensor that broadcasts over the batch, as float64."""
    own = own_index(index, t.shape[: t.dim() - trailing])
    return t[own].detach().cpu().double().numpy()


@final
class Sum(ConvexFunction):
    """f(y) = g(y) + h(y)."""

    def __init__(self, left: ConvexFunction, right: ConvexFunction) -> None:
        if None not in (left.dim, right.dim) and left.dim != right.dim:
            raise ValueError(
                f"f + g: expected two functions of the same dimension, got {left.dim} "
                f"and {right.dim}"
            )
        self.left = left
        self.right = right

    @property
    def batch_shape(self) -> torch.Size:
        return common_shape(self.left.batch_shape, self.right.batch_shape)

    @property
    def smooth(self) -> bool:
        return self.left.smooth and self.right.smooth

    @property
    def piecewise_linear(self) -> bool:
        return self.left.piecewise_linear and self.right.piecewise_linear

    @property
    def dim(self) -> int | None:
        return self.right.dim if self.left.dim is None else self.left.dim

    @property
    def like(self) -> Tensor | None:
        return self.right.like if self.left.like is None else self.left.like

    @property
    def strong_convexity(self) -> Tensor | float:
        return self.left.strong_convexity + self.right.strong_convexity

    def value(self, y: Tensor) -> Tensor:
        return self.left.value(y) + self.right.value(y)

    def value_and_gradient(self, y: Tensor) -> tuple[Tensor, Tensor]:
        (v, g), (w, h) = self.left.value_and_gradient(y), self.right.value_and_gradient(y)
        return v + w, g + h

    def hessian(self, y: Tensor) -> Tensor:
        return self.left.hessian(y) + self.right.hessian(y)

    def take(self, index: Tensor) -> Sum:
        return Sum(self.left.take(index), self.right.take(index))

    def to_lp(self, index: tuple[int, ...]) -> LinearProgram:
        from icnn_rl.functions.linear_program import LinearProgram

        return LinearProgram.total([self.left.to_lp(index), self.right.to_lp(index)])


class Derived(ConvexFunction):
    """A function made of one other, which by default it takes after."""

    def __init__(self, f: ConvexFunction) -> None:
        self.f = f

    @property
    def dim(self) -> int | None:
        return self.f.dim

    @property
    def like(self) -> Tensor | None:
        return self.f.like

    @property
    def smooth(self) -> bool:
        return self.f.smooth

    @property
    def piecewise_linear(self) -> bool:
        return self.f.piecewise_linear


class _Reduction(Derived):
    """What the reductions over the leading batch axis share."""

    def __init__(self, f: ConvexFunction, axis: int) -> None:
        if axis != 0 or len(f.batch_shape) < 2:
            raise ValueError(
                f"axis: expected 0, the ensemble axis of a batch of shape (E, B); got {axis} for "
                f"a batch of shape {tuple(f.batch_shape)}"
            )
        super().__init__(f)

    @property
    def batch_shape(self) -> torch.Size:
        return self.f.batch_shape[1:]

    @property
    def strong_convexity(self) -> Tensor | float:
        gamma = self.f.strong_convexity  # the least of the members' holds for mean and maximum
        return gamma.amin(0) if isinstance(gamma, Tensor) and gamma.dim() > 1 else gamma

    def take(self, index: Tensor) -> Self:
        return type(self)(self.f.take(index), 0)


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

    def to_lp(self, index: tuple[int, ...]) -> LinearProgram:
        from icnn_rl.functions.linear_program import LinearProgram

        index = own_index(index, self.batch_shape)
        members = range(self.f.batch_shape[0])
        total = LinearProgram.total([self.f.to_lp((e, *index)) for e in members])
        return total.scaled(1 / len(members))


@final
class Max(_Reduction):
    """f(y) = maxₑ gₑ(y)."""

    smooth = False

    def value(self, y: Tensor) -> Tensor:
        return self.f.value(y).amax(0)

    def value_and_gradient(self, y: Tensor) -> tuple[Tensor, Tensor]:
        values, gradients = self.f.value_and_gradient(y)
        value, member = values.max(0)
        chosen = member[None, ..., None].expand(1, *gradients.shape[1:])
        return value, gradients.gather(0, chosen).squeeze(0)

    def to_lp(self, index: tuple[int, ...]) -> LinearProgram:
        from icnn_rl.functions.linear_program import LinearProgram

        index = own_index(index, self.batch_shape)
        members = range(self.f.batch_shape[0])
        return LinearProgram.maximum([self.f.to_lp((e, *index)) for e in members])


@final
class Restriction(Derived):
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
        super().__init__(f)
        self.mask = mask
        self.values = values

    @property
    def batch_shape(self) -> torch.Size:
        return common_shape(self.f.batch_shape, self.mask.shape[:-1], self.values.shape[:-1])

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
        mask, values = take_rows(self.mask, index, -2), take_rows(self.values, index, -2)
        return Restriction(self.f.take(index), mask, values)

    def to_lp(self, index: tuple[int, ...]) -> LinearProgram:
        mask, values = entry(self.mask, index), entry(self.values, index)
        return self.f.to_lp(index).fixed(mask.astype(bool), values)


@final
class Affine(Derived):
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
        super().__init__(f)
        self.A = A
        self.b = b

    @property
    def dim(self) -> int:
        return self.A.shape[-1]

    @property
    def batch_shape(self) -> torch.Size:
        return common_shape(self.f.batch_shape, self.A.shape[:-2], self.b.shape[:-1])

    @property
    def like(self) -> Tensor | None:
        return self.A if self.f.like is None else self.f.like

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
        return Affine(
            self.f.take(index), take_rows(self.A, index, -3), take_rows(self.b, index, -2)
        )

    def to_lp(self, index: tuple[int, ...]) -> LinearProgram:
        return self.f.to_lp(index).substituted(entry(self.A, index, 2), entry(self.b, index))
