"""A batch of minimisation problems as the solvers see it: flat, on the CPU, in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from icnn_rl.functions import ConvexFunction
from icnn_rl.sets import ConvexSet
from icnn_rl.solvers.solution import Solution

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]

SHRINK = 0.75  # share of unfinished samples below which the function is cut down to them


@dataclass(frozen=True)
class Problem:
    """min f over a set, for every sample of a batch.

    Attributes:
        f: the functions, of any batch shape.
        over: the set.
        tol: the gap at which a sample is done.
        max_evaluations: evaluations after which a sample is given up.
        start: first points, shape ``(*batch_shape, n)``, inside the set.
    """

    f: ConvexFunction
    over: ConvexSet
    tol: float
    max_evaluations: int
    start: Tensor

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

    def flat(self, t: Tensor | float, *trailing: int) -> Array:
        """A number or tensor that broadcasts over the batch, as ``(size, *trailing)``."""
        t = torch.as_tensor(t, device=self.start.device).expand(*self.batch_shape, *trailing)
        return to_array(t.reshape(self.size, *trailing))

    def tensor(self, y: Array) -> Tensor:
        """Flat points in the shape, dtype and device of ``start``."""
        return torch.as_tensor(y, device=self.start.device).to(self.start.dtype).view_as(self.start)

    def solution(self, y: Array, value: Array, bound: Array, evaluations: Index) -> Solution:
        """Flat arrays as a Solution; the bound is rounded downward."""
        like = self.start

        def tensor(a: npt.NDArray[np.generic], dtype: torch.dtype) -> Tensor:
            return torch.as_tensor(a, device=like.device).to(dtype).view(self.batch_shape)

        lower = tensor(bound, like.dtype)
        if like.dtype != torch.float64:
            lower = torch.nextafter(lower, torch.full_like(lower, -torch.inf))
        return Solution(
            y=self.tensor(y),
            value=tensor(value, like.dtype),
            lower_bound=lower,
            converged=tensor(value - bound <= self.tol, torch.bool),
            evaluations=tensor(evaluations, torch.int64),
        )


class Oracle:
    """Evaluates the function of a problem on the samples that are not done yet.

    Args:
        problem: the problem.
        order: the method of the function to call: with its gradient or with its Hessian too.
    """

    def __init__(
        self, problem: Problem, order: Literal["value_and_gradient", "derivatives"]
    ) -> None:
        self._problem = problem
        self._order = order
        self._f = problem.f
        self._held = np.arange(problem.size)
        self._lower, self._upper = (
            to_array(b).reshape(-1, problem.dim) for b in problem.over.bounds(problem.start)
        )

    def __call__(self, y: Array, active: Index) -> tuple[Array, ...]:
        """Evaluate at y, after rounding it to the function's precision, inside the bounds.

        Args:
            y: points, shape ``(a, n)``.
            active: the sample that each belongs to, increasing, shape ``(a,)``.

        Returns:
            The rounded points, the values and the derivatives, with a leading axis a.

        Raises:
            ValueError: a value is not finite.
        """
        problem, like = self._problem, self._problem.start
        if len(problem.batch_shape) == 1 and len(active) < SHRINK * len(self._held):
            kept = torch.as_tensor(np.searchsorted(self._held, active), device=like.device)
            self._f = self._f.take(kept)
            self._held = active
        rows = np.searchsorted(self._held, active)
        whole = len(active) == len(self._held)
        rounded = torch.as_tensor(y).to(like.dtype).double().numpy()
        rounded = np.clip(rounded, self._lower[active], self._upper[active])
        points = rounded
        if not whole:
            points = np.zeros((len(self._held), problem.dim))
            points[rows] = rounded
        tensor = torch.as_tensor(points, device=like.device).to(like.dtype)
        if len(self._held) == problem.size:
            tensor = tensor.view_as(like)
        results = []
        for t in getattr(self._f, self._order)(tensor):
            flat = to_array(t.reshape(len(self._held), *t.shape[len(problem.batch_shape) :]))
            results.append(flat if whole else flat[rows])
        if not np.isfinite(results[0]).all():
            bad = int(active[np.flatnonzero(~np.isfinite(results[0]))[0]])
            raise ValueError(f"f: expected finite values, got one that is not for sample {bad}")
        return rounded, *results


def to_array(t: Tensor) -> Array:
    """A tensor as a float64 array."""
    return t.detach().cpu().double().numpy()
