"""How an agent solves for its actions: how precisely, over the action space or a set in it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from icnn_rl import Box, ConvexFunction, Solution, minimize, minimize_modes
from icnn_rl.agents.validation import require
from icnn_rl.networks import ConditionedQuadratic
from icnn_rl.runs.configuration import require_at_least
from icnn_rl.sets import ConvexSet
from icnn_rl.solvers import SOLVERS, NonFiniteError


@dataclass(frozen=True)
class SolverSettings:
    """Arguments of ``icnn_rl.minimize``, small and plain so that they travel in saved models.

    Args:
        name: the solver, as in ``minimize(solver=...)``.
        tol: certified gap, in units of Q, at which an action is good enough.
        max_evaluations: cap on the evaluations of the critics per call. Newton's method, which
            solves for smooth critics, takes three on average; piecewise-linear ones need twenty
            and more.

    Raises:
        ValueError: there is no such solver, or a number is too small.
    """

    name: str = "auto"
    tol: float = 1e-3
    max_evaluations: int = 50

    def __post_init__(self) -> None:
        known = self.name in ("auto", *SOLVERS)
        require(known, "solver name", f"'auto' or one of {tuple(SOLVERS)}", repr(self.name))
        require_at_least(0, "", self, "tol")
        require_at_least(1, "", self, "max_evaluations")

    def changed_by(self, settings: SolverSettings | dict[str, Any]) -> SolverSettings:
        """The settings given, or these where a dict names others.

        Raises:
            ValueError: they are something else, or the dict names what is no setting.
        """
        if isinstance(settings, SolverSettings):
            return settings
        names = [field.name for field in fields(self)]
        known = isinstance(settings, dict) and settings.keys() <= set(names)
        expected = f"SolverSettings or a dict of {names}"
        require(known, "solver, acting_solver", expected, settings)
        return replace(self, **settings)

    def minimize(self, f: ConvexFunction, over: ConvexSet) -> Solution:
        """Minimise functions of batch shape (B,), or the least of K for (K, B), over a set."""
        limit = self.max_evaluations
        if len(f.batch_shape) > 1:
            return minimize_modes(f, over, self.tol, solver=self.name, max_evaluations=limit)[0]
        return minimize(f, over, self.tol, self.name, max_evaluations=limit)


TARGET = SolverSettings(tol=1e-2, max_evaluations=10)
"""Default of updates."""
ACTING = SolverSettings(tol=1e-4, max_evaluations=200)
"""Default of acting."""


def minimize_quadratic(f: ConditionedQuadratic) -> Solution:
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


def minimize_within(
    f: ConvexFunction, action_set: ConvexSet, low: Tensor, high: Tensor, solver: SolverSettings
) -> Solution:
    """Minimise functions of scaled actions over a set in the environment's units.

        argmin { f(S u + t) : u ∈ action_set, low ≤ u ≤ high },
        S u + t = 2 (u - low) / (high - low) - 1

    Args:
        f: functions of actions scaled to [-1, 1]ⁿ, of batch shape (B,), or of shape (K, B) for K
            modes of which the least counts.
        action_set: any set, in the environment's units; its part in the action space counts.
        low: lower bounds of the action space, shape (n,), in double precision.
        high: upper bounds, likewise.
        solver: how precisely to solve.

    Returns:
        Actions in the environment's units, shape (B, n), in double precision, with their
        certificates.

    Raises:
        ValueError: the set has the wrong dimension or misses the action space.
    """
    batch = low.new_zeros(f.batch_shape[-1], len(low))
    scale, shift = 2 / (high - low), -(high + low) / (high - low)
    if isinstance(action_set, Box):
        lower, upper = _intersection(action_set, low, high, batch)
        bounds = (scaled(bound, low, high).float() for bound in (lower, upper))
        solution = solver.minimize(f, Box(*bounds))
        return replace(solution, y=((solution.y - shift) / scale).clamp(lower, upper))
    try:
        within = _inside(action_set, low.float(), high.float(), batch.float())
        identity = bool((scale == 1).all() and (shift == 0).all())  # faster without the map
        g = f if identity else f.affine(torch.diag(scale).float(), shift.float())
        solution = solver.minimize(g, within)
    except NonFiniteError:
        raise
    except ValueError as error:
        raise ValueError(
            f"action_set: expected a set of {len(low)} dimensions for {len(batch)} observations; "
            f"got {action_set} ({error})"
        ) from error
    _require_met(not bool(solution.infeasible.any()), str(action_set), low, high)
    # Solvers stay inside the set to a tolerance relative to its width; actions to rounding.
    return replace(solution, y=project_onto(action_set, solution.y.double(), low, high))


def measures(losses: list[Tensor], solutions: list[Solution]) -> dict[str, float]:
    """The mean loss of updates, and how precise their argmins are, by the names of the log."""
    gaps = torch.cat([s.gap for s in solutions])
    numbers = {
        "train/critic_loss": torch.stack(losses).mean(),
        "solver/evaluations": torch.cat([s.evaluations for s in solutions]).float().mean(),
        "solver/gap_mean": gaps.mean(),
        "solver/gap_max": gaps.max(),
        "solver/not_converged": 1 - torch.cat([s.converged for s in solutions]).float().mean(),
    }
    # Together, as each number that is read waits for the device.
    return dict(zip(numbers, torch.stack(list(numbers.values())).tolist(), strict=True))


def scaled(actions: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Actions between bounds, scaled to [-1, 1]."""
    return 2 * (actions - low) / (high - low) - 1


def project_onto(action_set: ConvexSet, actions: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The nearest actions in a set and the action space, Euclidean, in the environment's units."""
    exact = actions.double()
    nearest = _inside(action_set, low.double(), high.double(), exact).project(exact)
    return nearest.to(actions.dtype)


def _inside(action_set: ConvexSet, low: Tensor, high: Tensor, like: Tensor) -> ConvexSet:
    """The part of a set in the action space.

    A set that is known to lie inside is returned as it is, since it projects faster.
    """
    lower, upper = action_set.canonical(like).known_bounds
    contained = bool(((low <= lower) & (upper <= high)).all())
    return action_set if contained else action_set & Box(low, high)


def _intersection(box: Box, low: Tensor, high: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
    n = batch.shape[-1]
    for bound in (box.lower, box.upper):
        shape = torch.as_tensor(bound).shape
        fits = not shape or shape[-1] == n
        expected = f"a box in {n} dimensions, as the action space"
        require(fits, "action_set", expected, f"bounds of shape {tuple(shape)}")
    lower, upper = box.bounds(batch)
    lower, upper = torch.maximum(lower, low), torch.minimum(upper, high)
    met = bool((lower <= upper).all())
    _require_met(met, f"bounds {box.lower} and {box.upper}", low, high)
    return lower, upper


def _require_met(met: bool, got: str, low: Tensor, high: Tensor) -> None:
    space = f"from {low.tolist()} to {high.tolist()}"
    require(met, "action_set", f"a set that meets the action space, {space}", got)
