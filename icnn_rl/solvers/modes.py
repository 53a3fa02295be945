"""The minimum over several convex functions: not convex, yet solved exactly."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from icnn_rl.functions import ConvexFunction
from icnn_rl.sets import ConvexSet
from icnn_rl.solvers.minimize import minimize
from icnn_rl.solvers.solution import Solution


def minimize_modes(
    f: ConvexFunction, over: ConvexSet, tol: float = 1e-4, solver: str = "auto", **options: Any
) -> tuple[Solution, Tensor]:
    """Minimise min_k f_k over a set, with a proven gap to the global minimum.

        y* ≈ argmin { min_k f_k(y) : y ∈ 𝒴 },      min_k lower_bound_k ≤ min_k f_k(y*)

    The K convex problems of each sample are solved as one batch. The best answer of all is the
    answer, and the lowest of all bounds holds for every mode.

    Args:
        f: functions with a leading mode axis, batch shape ``(K, *batch)``: a network whose
            ensemble axis counts the modes.
        over: the feasible set 𝒴.
        tol, solver, options: as in ``minimize``.

    Returns:
        A ``Solution`` with tensors of shape ``batch``, its ``evaluations`` summed over the modes,
        and the mode k that y* belongs to, of shape ``batch``.

    Raises:
        ValueError: f has no mode axis; otherwise as ``minimize``.

    Source: Lim, Joseph, Le, Pan & White, "Actor-Expert: A framework for using Q-learning in
    continuous action spaces", 2018, shows where one convex piece is too few.
    """
    if len(f.batch_shape) < 1 or f.batch_shape[0] < 1:
        raise ValueError(
            f"f: expected a leading mode axis, as an ensemble has; got batch shape "
            f"{tuple(f.batch_shape)}"
        )
    each = minimize(f, over, tol, solver, **options)
    value, mode = each.value.min(0)
    lower_bound = each.lower_bound.amin(0)
    chosen = mode[None, ..., None].expand(1, *each.y.shape[1:])
    return (
        Solution(
            y=each.y.gather(0, chosen).squeeze(0),
            value=value,
            lower_bound=lower_bound,
            converged=(value - lower_bound <= tol) & value.isfinite(),
            evaluations=each.evaluations.sum(0),
            infeasible=each.infeasible.all(0),
            unbounded=each.unbounded.any(0),
        ),
        mode,
    )
