"""How precisely an agent solves for its actions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from icnn_rl import ConvexFunction, Solution, minimize
from icnn_rl.sets import ConvexSet


@dataclass(frozen=True)
class SolverSettings:
    """Arguments of ``icnn_rl.minimize``, small and plain so that they travel in saved models.

    Attributes:
        method: the solver, as in ``minimize(solver=...)``.
        tol: certified gap, in units of Q, at which a sample is done.
        max_evaluations: cap on the evaluations of the critics per call.
    """

    method: str = "auto"
    tol: float = 1e-3
    max_evaluations: int = 50

    @classmethod
    def of(cls, settings: SolverSettings | dict[str, Any]) -> SolverSettings:
        """The settings themselves, or those that a dict of them spells out."""
        return cls(**settings) if isinstance(settings, dict) else settings

    def minimize(self, f: ConvexFunction, over: ConvexSet, start: Tensor | None = None) -> Solution:
        """Minimise the batch of convex functions ``f`` over a set, to these settings."""
        return minimize(
            f,
            over=over,
            tol=self.tol,
            solver=self.method,
            start=start,
            max_evaluations=self.max_evaluations,
        )


TARGET = SolverSettings(tol=1e-2)
ACTING = SolverSettings(tol=1e-4, max_evaluations=200)
