"""A batch of minimisation problems as the solvers see it: flat, on the CPU, in float64."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from icnn_rl.functions import ConvexFunction
from icnn_rl.sets import Box, CanonicalSet, ConvexSet
from icnn_rl.solvers.solution import Solution, rounded_down

if TYPE_CHECKING:
    from icnn_rl.kernels.polyhedron import Polyhedron

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class NonFiniteError(ValueError, FloatingPointError):
    """A value or a gradient of the function is NaN or infinite."""

    @classmethod
    def at(cls, sample: int, value: float, gradient: Array) -> Self:
        """The error for what a sample's function gave."""
        got = f"the gradient {gradient}" if np.isfinite(value) else value
        return cls(f"f: expected finite values, got {got} for sample {sample}")


@dataclass(frozen=True)
class Problem:
    """min f over a set, for every sample of a batch.

    Attributes:
        f: the functions, of any batch shape.
        over: the set.
        tol: the gap at which a sample is done.
        max_evaluations: evaluations after which a sample stops.
        start: first points, shape ``(*batch_shape, n)``, inside the set.
        center: points well inside the set, likewise.
    """

    f: ConvexFunction
    over: ConvexSet
    tol: float
    max_evaluations: int
    start: Tensor
    center: Tensor

    @property
    def batch_shape(self) -> torch.Size:
        return self.start.shape[:-1]

    @property
    def size(self) -> int:
        """The number of samples."""
        return self.batch_shape.numel()

    @property
    def dim(self) -> int:
        return self.start.shape[-1]

    @property
    def epsilon(self) -> float:
        """The rounding unit of the function's precision."""
        return torch.finfo(self.start.dtype).eps

    @cached_property
    def canonical(self) -> CanonicalSet:
        """The set's bounds and rows."""
        return self.over.canonical(self.start)

    @cached_property
    def polyhedron(self) -> Polyhedron:
        """The set's bounds and rows as compiled code reads them."""
        from icnn_rl.kernels.polyhedron import Polyhedron  # it loads numba

        if isinstance(self.over, Box):  # whose canonical form takes longer than a small problem
            return Polyhedron.box(*self.bounds)
        return self.canonical.polyhedron

    @cached_property
    def bounds(self) -> tuple[Array, Array]:
        """Lower and upper bounds in the function's precision, each ``(size, n)``."""
        lower, upper = self.over.bounds(self.start)
        return self.flat(lower, self.dim), self.flat(upper, self.dim)

    def flat(self, t: Tensor | float, *trailing: int) -> Array:
        """A number or tensor that broadcasts over the batch, as ``(size, *trailing)``."""
        if not isinstance(t, Tensor):
            return np.full((self.size, *trailing), t, np.float64)
        t = t.expand((*self.batch_shape, *trailing))
        return to_array(t.reshape(self.size, *trailing))

    def tensor(self, y: Array) -> Tensor:
        """Flat points in the shape, dtype and device of ``start``."""
        like = self.start
        return torch.from_numpy(y).to(like).view(like.shape)

    def project(self, y: Array) -> Array:
        """The nearest feasible points to flat points."""
        return to_array(self.over.project(self.tensor(y))).reshape(y.shape)

    def support(self, c: Array) -> Array:
        """max { cᵀy : y in the set } for flat directions, ``(size,)``."""
        exact = torch.as_tensor(c, device=self.start.device).view_as(self.start)
        return to_array(self.over.support(exact)).reshape(self.size)

    def solution(
        self,
        y: Array,
        value: Array,
        bound: Array,
        evaluations: Index,
        *,
        unbounded: Mask | None = None,
    ) -> Solution:
        """Flat arrays as a Solution; the bound is rounded downward."""
        like = self.start

        def tensor(a: npt.NDArray[np.generic], dtype: torch.dtype) -> Tensor:
            return torch.from_numpy(a).to(like.device, dtype).view(self.batch_shape)

        nowhere = like.new_zeros(self.batch_shape, dtype=torch.bool)
        # The value is rounded, the bound is not: near the minimum they may pass each other.
        lower = rounded_down(tensor(np.minimum(bound, value), torch.float64), like.dtype)
        return Solution(
            y=self.tensor(y),
            value=tensor(value, like.dtype),
            lower_bound=lower,
            converged=tensor(value - bound <= self.tol, torch.bool),
            evaluations=tensor(evaluations, torch.int64),
            infeasible=nowhere,
            unbounded=nowhere if unbounded is None else tensor(unbounded, torch.bool),
        )


@runtime_checkable
class Solver(Protocol):
    """A way to solve problems. What ``minimize`` is given may be any object with this method."""

    def solve(self, problem: Problem) -> Solution:
        """Solve every sample of a problem, or prove as much as ``max_evaluations`` allow.

        The set is not empty, and bounded unless f is strongly convex. A solver whose attribute
        ``linear`` is true takes any set, finds out itself where f falls for ever, and takes no
        quadratic term.

        Raises:
            TypeError: the solver does not apply to this function or set.
        """
        ...


def capturing(t: Tensor) -> bool:
    """Whether the device of t records a CUDA graph, so that its numbers are not known yet."""
    return t.is_cuda and torch.cuda.is_current_stream_capturing()


def to_array(t: Tensor) -> Array:
    """A tensor as a contiguous float64 array; compiled code would be compiled again for others."""
    return np.ascontiguousarray(t.detach().cpu().double().numpy())
