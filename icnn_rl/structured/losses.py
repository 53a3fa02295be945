"""Losses that train a network by its minima.

A loss takes a model, a minibatch x, its targets y, and points to start the solver from. It returns
one number per sample, differentiable in the parameters, and the minimisers that it found: a good
start for the next epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple, Protocol, TypeVar, final

import torch
from torch import Tensor, nn

from icnn_rl.adjoints import argmin, unrolled
from icnn_rl.functions import ConvexFunction, linear
from icnn_rl.networks.normalization import BatchRenorm
from icnn_rl.solvers import Solution
from icnn_rl.structured.model import Network, StructuredModel

L = TypeVar("L")


class LossValue(NamedTuple):
    """What a loss returns.

    Attributes:
        value: one number per sample, ``(B,)``, differentiable.
        answer: the minimisers behind it, ``(B, n)``, to start the solver from in the next epoch;
            None if the loss takes no start.
        active: the share of samples with a gradient.
        evaluations: of f by the solver, mean over the samples.
    """

    value: Tensor
    answer: Tensor | None
    active: float
    evaluations: float


class Loss(Protocol):
    """A loss of a model on a minibatch."""

    def __call__(
        self, model: StructuredModel, x: Tensor, y: Tensor, start: Tensor | None = None
    ) -> LossValue: ...


class Margin(Protocol):
    """A distance Δ(yᵢ, y) such that f̃ - Δ is convex in y.

    Attributes:
        vertices: whether yᵢ, and likely the minimiser of f̃ - Δ, are vertices of 𝒴.
    """

    vertices: ClassVar[bool]

    def distance(self, target: Tensor, y: Tensor) -> Tensor:
        """Δ(yᵢ, y), ``(B,)``."""

    def augmented(
        self, model: StructuredModel, f: ConvexFunction, target: Tensor
    ) -> ConvexFunction:
        """f̃ - Δ(yᵢ, ·) up to a constant, given f = f(x, ·)."""


@final
@dataclass(frozen=True)
class Hamming:
    """Δ(yᵢ, y) = s Σⱼ |yᵢⱼ - yⱼ|, linear in y where yᵢ is a vertex of the unit box or a simplex.

    On a simplex with s = 1/2 it is 1 - yᵢᵀy, the share of mistaken classes.

    Args:
        scale: s > 0.

    Raises:
        ValueError: s is not positive.
    """

    scale: float = 1.0
    vertices: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"scale: expected a number > 0, got {self.scale}")

    def distance(self, target: Tensor, y: Tensor) -> Tensor:
        return self.scale * (target - y).abs().sum(-1)

    def augmented(
        self, model: StructuredModel, f: ConvexFunction, target: Tensor
    ) -> ConvexFunction:
        return model.curved(f) + linear(self.scale * (2 * target - 1))


@final
@dataclass(frozen=True)
class SquaredError:
    """Δ(yᵢ, y) = γ/2 ‖y - yᵢ‖² for continuous answers: f̃ - Δ is f̃ less curved, and γ yᵢᵀy.

    Half of the curvature c of f̃ is a good γ: the loss of a network linear in y, f = -c mᵀy, is then
    the squared error c ‖m - yᵢ‖² of its answer m. With γ = c it would be an absolute error that
    depends on the bounds.

    Args:
        gamma: 0 < γ ≤ c.

    Raises:
        ValueError: γ is not positive.
    """

    gamma: float
    vertices: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.gamma > 0:
            raise ValueError(f"gamma: expected a number > 0, got {self.gamma}")

    def distance(self, target: Tensor, y: Tensor) -> Tensor:
        return self.gamma / 2 * (y - target).square().sum(-1)

    def augmented(
        self, model: StructuredModel, f: ConvexFunction, target: Tensor
    ) -> ConvexFunction:
        rest = replace(model, curvature=model.curvature - self.gamma)
        return rest.curved(f) + linear(self.gamma * target)


@final
@dataclass(frozen=True)
class MaxMargin:
    """The structured hinge loss.

        L = f̃(x, yᵢ) - min { f̃(x, y) - Δ(yᵢ, y) : y ∈ 𝒴 } ≥ 0

    For a margin with vertices the solver starts at yᵢ: if the margin holds, one evaluation proves
    it. Only the other samples, the active ones, pass through the network for the gradient, which is
    ∂f̃(x, yᵢ)/∂θ - ∂f̃(x, y*)/∂θ by the envelope theorem. For other margins the solver starts at the
    last answer.

    Args:
        margin: Δ.

    Source: Amos & Kolter, "Input-Convex Deep Networks", ICLR workshop 2016, "ICNN learning";
    Taskar, Chatalbashev, Koller & Guestrin, "Learning structured prediction models", ICML 2005.
    """

    margin: Margin

    def __call__(
        self, model: StructuredModel, x: Tensor, y: Tensor, start: Tensor | None = None
    ) -> LossValue:
        # With dropout or batch normalisation a second pass would be another function of y: then
        # one pass serves both the solver and the gradient.
        once = _passes_differ(model.net)
        with torch.set_grad_enabled(once):
            f = model.net.condition(x)
        with torch.no_grad():
            # One evaluation proves a vertex optimal. Where more are needed, a good rival teaches as
            # well as the best one.
            options = {"solver": "bundle", "max_evaluations": 5} if self.margin.vertices else {}
            augmented = self.margin.augmented(model, f, y)
            first = y if self.margin.vertices or start is None else start
            solution = model.solve(augmented, first, **options)
            away = (solution.y - y).abs().amax(-1) > 1e-3  # more than the solver's tolerance leaves
            answer = torch.where(away.unsqueeze(-1), solution.y, y)
            violated = away.nonzero().squeeze(-1)
        value = torch.zeros_like(solution.value)
        if len(violated):
            target, rival = y[violated], answer[violated]
            f = model.curved(f.take(violated) if once else model.net.condition(x[violated]))
            hinge = f.value(target) - f.value(rival) + self.margin.distance(target, rival)
            value = value.index_put((violated,), hinge.relu())  # below 0 by the tolerance at most
        return LossValue(value, answer, len(violated) / len(x), mean_evaluations(solution))


@final
@dataclass(frozen=True)
class FenchelYoung:
    """The loss whose minimiser is a distribution: with f linear in y, the log-likelihood.

        L = f̃(x, yᵢ) + Ω(yᵢ) - min { f̃(x, y) + Ω(y) : y ∈ 𝒴 } ≥ 0

    With Ω the negative entropy of the simplex or the box, and f = -θᵀy, this is the cross entropy
    of softmax or sigmoid(θ); a network convex in y adds the dependence between the parts of y.

    Args:
        regularizer: Ω, such as ``negative_entropy(1.0)``.
        margin: Δ, subtracted from f̃: answers far from yᵢ have to be less probable. None for none.

    Source: Blondel, Martins & Niculae, "Learning with Fenchel-Young losses", JMLR 21, 2020; with a
    margin, Gimpel & Smith, "Softmax-margin CRFs", NAACL 2010.
    """

    regularizer: ConvexFunction
    margin: Margin | None = None

    def __call__(
        self, model: StructuredModel, x: Tensor, y: Tensor, start: Tensor | None = None
    ) -> LossValue:
        f = model.net.condition(x)
        f = model.curved(f) if self.margin is None else self.margin.augmented(model, f, y)
        f = f + self.regularizer
        solution = model.solve(f, start)
        value = f.value(y) - f.value(solution.y)
        return LossValue(value, solution.y, 1.0, mean_evaluations(solution))


@final
@dataclass(frozen=True)
class ArgMinError:
    """The error of the answer itself, differentiated through the minimisation.

        L = 1/2 ‖ŷ(x) - yᵢ‖²,      ŷ(x) = argmin { f̃(x, y) + Ω(y) : y ∈ 𝒴 }

    Unrolled steps always begin at the interior point of 𝒴: from the last answer, the network would
    learn not to move.

    Args:
        steps: number of projected gradient steps that are unrolled; 0 for implicit differentiation
            of the exact minimiser, for which f̃ + Ω has to be smooth and strongly convex.
        step: length of an unrolled step.
        regularizer: Ω, or None for none.

    Source: Amos, Xu & Kolter, "Input Convex Neural Networks", ICML 2017, on argmin
    differentiation; Domke, "Generic methods for optimization-based modeling", AISTATS 2012.
    """

    steps: int = 0
    step: float = 0.1
    regularizer: ConvexFunction | None = None

    def __call__(
        self, model: StructuredModel, x: Tensor, y: Tensor, start: Tensor | None = None
    ) -> LossValue:
        f = model.energy(x)
        if self.regularizer is not None:
            f = f + self.regularizer
        if self.steps:
            solution = unrolled(f, model.over, self.step, self.steps, tol=model.tol)
        else:
            solution = argmin(f, model.over, model.tol, start=start)
        value = (solution.y - y).square().sum(-1) / 2
        return LossValue(value, solution.y.detach(), 1.0, mean_evaluations(solution))


def select_loss(name: str, losses: Mapping[str, L]) -> L:
    """The loss of a name.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in losses:
        raise ValueError(f"loss: expected one of {tuple(losses)}, got {name!r}")
    return losses[name]


def mean_evaluations(solution: Solution) -> float:
    """Evaluations of f, mean over the samples."""
    return solution.evaluations.double().mean().item()


def _passes_differ(net: Network) -> bool:
    """Whether f(xᵢ, ·) depends on the pass, or on the other samples in it."""
    modules = net.modules() if isinstance(net, nn.Module) else ()
    norms = (BatchRenorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    return any(
        m.training and (isinstance(m, norms) or (isinstance(m, nn.Dropout) and m.p > 0))
        for m in modules
    )
