"""What a solver returns: an answer for each sample, with the proof of how good it is."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Solution:
    """Minimisers of a batch of convex functions, each with a certificate.

    ``lower_bound`` is below the true minimum whatever the solver did, so ``gap`` is a proof:
    value - min f ≤ gap. A solver that stops early returns a larger gap, never a false one.

    Attributes:
        y: the best points found, shape ``(*batch, n)``, feasible.
        value: f(y), shape ``batch``.
        lower_bound: a number below min f, shape ``batch``.
        converged: whether gap ≤ tol, shape ``batch``.
        evaluations: how often f was evaluated, shape ``batch``.
    """

    y: Tensor
    value: Tensor
    lower_bound: Tensor
    converged: Tensor
    evaluations: Tensor

    @property
    def gap(self) -> Tensor:
        """value - lower_bound ≥ value - min f, shape ``batch``."""
        return self.value - self.lower_bound
