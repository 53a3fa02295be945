"""How precisely an agent solves for its actions."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from icnn_rl import ConvexFunction, Solution, minimize, minimize_modes
from icnn_rl.agents.validation import require_at_least
from icnn_rl.networks import ConditionedQuadratic
from icnn_rl.sets import ConvexSet
from icnn_rl.solvers import SOLVERS


@dataclass(frozen=True)
class SolverSettings:
    """Arguments of ``icnn_rl.minimize``, small and plain so that they travel in saved models.

    Attributes:
        method: the solver, as in ``minimize(solver=...)``.
        tol: certified gap, in units of Q, at which a sample is done.
        max_evaluations: cap on the evaluations of the critics per call.

    Raises:
        ValueError: there is no such solver, or a number is too small.
    """

    method: str = "auto"
    tol: float = 1e-3
    max_evaluations: int = 50

    def __post_init__(self) -> None:
        if self.method not in ("auto", *SOLVERS):
            raise ValueError(
                f"method: expected 'auto' or one of {tuple(SOLVERS)}, got {self.method!r}"
            )
        require_at_least(0, tol=self.tol)
        require_at_least(1, max_evaluations=self.max_evaluations)

    def changed_by(self, settings: SolverSettings | dict[str, Any]) -> SolverSettings:
        """The settings given, or these where a dict names others.

        Raises:
            ValueError: they are something else, or the dict names what is no setting.
        """
        if isinstance(settings, SolverSettings):
            return settings
        names = [field.name for field in fields(self)]
        if not isinstance(settings, dict) or not settings.keys() <= set(names):
            raise ValueError(
                f"solver, acting_solver: expected SolverSettings or a dict of {names}, "
                f"got {settings}"
            )
        return replace(self, **settings)

    def minimize(self, f: ConvexFunction, over: ConvexSet) -> Solution:
        """Minimise functions of batch shape (B,), or the least of K for (K, B), over a set."""
        limit = self.max_evaluations
        if len(f.batch_shape) > 1:
            return minimize_modes(f, over, self.tol, solver=self.method, max_evaluations=limit)[0]
        return minimize(f, over, self.tol, self.method, max_evaluations=limit)


def vertex(f: ConditionedQuadratic) -> Solution:
    """The minima of quadratics over any set that holds their centres, in closed form."""
    exact = torch.ones_like(f.level, dtype=torch.bool)
    return Solution(
        y=f.center,
        value=f.level,
        lower_bound=f.level,
        converged=exact,
        evaluations=torch.zeros_like(f.level, dtype=torch.long),
        infeasible=~exact,
        unbounded=~exact,
    )


def achieved(solutions: list[Solution]) -> dict[str, Tensor]:
    """How precisely argmins were solved for, and at what cost, by the names of the log."""
    gaps = torch.cat([s.gap for s in solutions])
    converged = torch.cat([s.converged for s in solutions]).float()
    evaluations = torch.cat([s.evaluations for s in solutions]).float()
    return {
        "solver/evaluations": evaluations.mean(),
        "solver/gap_mean": gaps.mean(),
        "solver/gap_max": gaps.max(),
        "solver/not_converged": 1 - converged.mean(),
    }


TARGET = SolverSettings(tol=1e-2, max_evaluations=10)  # for smooth critics, by Newton's method
ACTING = SolverSettings(tol=1e-4, max_evaluations=200)
