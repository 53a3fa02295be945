"""Exemplars: the inputs that a network convex in x and y finds most typical of an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, final

import torch
from torch import Tensor

from icnn_rl.functions import ConvexFunction, linear, quadratic
from icnn_rl.sets import ConvexSet
from icnn_rl.solvers import Solution, minimize
from icnn_rl.structured.losses import LossValue
from icnn_rl.structured.training import Objective


class JointNetwork(Protocol):
    """What exemplars need of a network; FICNN and ConvFICNN have it."""

    def condition(self, x: Tensor | None = None, *, y: Tensor | None = None) -> ConvexFunction:
        """A batch of convex functions of the one that is not given."""


def exemplar_energy(net: JointNetwork, y: Tensor, curvature: float = 0.0) -> ConvexFunction:
    """f̃(·, y) = f(·, y) + γ/2 ‖·‖², a batch of convex functions of x.

    Args:
        net: the network f.
        y: answers, ``(K, n)``.
        curvature: γ ≥ 0.
    """
    f = net.condition(y=y)
    if curvature == 0.0:
        return f
    assert f.dim is not None
    return f + quadratic(curvature, y.new_zeros(f.dim))


def exemplars(
    net: JointNetwork,
    y: Tensor,
    over: ConvexSet,
    curvature: float = 0.0,
    tol: float = 1e-3,
    max_evaluations: int = 500,
) -> Solution:
    """The most typical inputs of some answers, each with its certified gap.

        x*ₖ = argmin { f(x, yₖ) + γ/2 ‖x‖² : x ∈ X }

    Args:
        net: the network f, convex in x and y together.
        y: answers, ``(K, n)``; the unit vectors for classes.
        over: the set X of inputs.
        curvature: γ ≥ 0.
        tol: certified gap, in units of f, at which an exemplar is good enough.
        max_evaluations: of f, per exemplar.

    Returns:
        A ``Solution`` whose ``y`` are the exemplars, ``(K, m)``.

    Source: Amos & Kolter, "Input-Convex Deep Networks", ICLR workshop 2016, "Exemplars".
    """
    with torch.no_grad():
        f = exemplar_energy(net, y, curvature)
        return minimize(f, over, tol, max_evaluations=max_evaluations)


@final
@dataclass(frozen=True)
class ExemplarLoss:
    """The loss of the answers, plus a margin of the exemplars.

        L = 1/B Σᵢ Lᵢ + w/K Σₖ { f̃(mₖ, yₖ) - min [ f̃(x, yₖ) - γ/2 ‖x - mₖ‖² : x ∈ X ] }

    with mₖ the mean of a class in the minibatch. Single samples instead of means would ask for a
    minimum of f̃(·, yₖ) at each of them, and the answers would suffer. The margin is as curved as
    f̃, so the function to minimise is convex: f(x, yₖ) + γ mₖᵀx. The solver makes few evaluations,
    from the last minimiser of the class: any x bounds the loss from below, but if the start did
    not follow the minimiser, the network would learn to move it away.

    Args:
        answers: the loss Lᵢ of a minibatch.
        net: the network f, convex in x and y together.
        over: the set X of inputs.
        curvature: γ > 0, also of the margin.
        weight: w ≥ 0.
        rivals: the last minimiser of every class, ``(K, m)``, overwritten in every step; a buffer
            of the network, so that it is saved with it.
        evaluations: of f, per exemplar and step.

    Source: Amos & Kolter, "Input-Convex Deep Networks", ICLR workshop 2016, "Exemplars".
    """

    answers: Objective
    net: JointNetwork
    over: ConvexSet
    curvature: float
    weight: float
    rivals: Tensor
    evaluations: int = 10

    def __call__(self, x: Tensor, y: Tensor, start: Tensor | None = None) -> LossValue:
        loss = self.answers(x, y, None)
        value = loss.value + self.weight * self.margins(x, y).mean()
        return loss._replace(value=value, answer=None)

    def margins(self, x: Tensor, y: Tensor) -> Tensor:
        """The loss of each class that occurs among samples x, ``(B, m)``, with y, ``(B, n)``."""
        counts = y.sum(0)
        present = counts > 0
        target = (y.T @ x)[present] / counts[present].unsqueeze(1)
        f = self.net.condition(y=torch.eye(y.shape[1], dtype=y.dtype, device=y.device)[present])
        slope = self.curvature * target
        with torch.no_grad():
            self.rivals[present] = minimize(
                f + linear(slope),
                self.over,
                tol=0.0,
                solver="bundle",
                start=self.rivals[present],
                max_evaluations=self.evaluations,
            ).y
        rival = self.rivals[present]
        return f.value(target) - f.value(rival) + (slope * (target - rival)).sum(-1)
