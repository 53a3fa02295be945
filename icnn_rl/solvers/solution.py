"""What a solver returns: an answer for each sample, with the proof of how good it is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Solution:
    """Minimisers of a batch of convex functions, each with a certificate.

    ``lower_bound`` is below the true minimum whatever the solver did, so ``gap`` is a proof:
    value - min f ≤ gap. A solver that stops early returns a larger gap, never a false one.

    Attributes:
        y: the best points found, shape ``(*batch, n)``, feasible; NaN where there are none.
        value: f(y), shape ``batch``; ∞ where the set is empty.
        lower_bound: a number below min f, shape ``batch``.
        converged: whether gap ≤ tol, shape ``batch``.
        evaluations: how often f was evaluated, shape ``batch``.
        infeasible: where the set is empty, shape ``batch``.
        unbounded: where the set goes to infinity and nothing in f is known to stop the descent, so
            that nothing is proved, shape ``batch``; the solvers of linear programs know better,
            and say so where the minimum is -∞.
    """

    y: Tensor
    value: Tensor
    lower_bound: Tensor
    converged: Tensor
    evaluations: Tensor
    infeasible: Tensor
    unbounded: Tensor

    @property
    def gap(self) -> Tensor:
        """value - lower_bound ≥ value - min f, shape ``batch``; ∞ where nothing is proved."""
        gap: Tensor = self.value - self.lower_bound
        return torch.where(self.infeasible, torch.inf, gap)


def rounded_down(bound: Tensor, dtype: torch.dtype) -> Tensor:
    """A lower bound in another precision, not above what it was."""
    bound = bound.to(dtype)
    if dtype == torch.float64:
        return bound
    return torch.nextafter(bound, torch.full_like(bound, -torch.inf))
