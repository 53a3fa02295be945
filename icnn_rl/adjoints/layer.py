"""A minimiser as a layer of a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor, nn

from icnn_rl.adjoints.argmin import argmin
from icnn_rl.adjoints.unrolled import unrolled
from icnn_rl.functions import ConvexFunction
from icnn_rl.sets import ConvexSet
from icnn_rl.solvers import Solution
from icnn_rl.solvers.eager import eager

METHODS: dict[str, Callable[..., Solution]] = {"implicit": argmin, "unrolled": unrolled}


class ArgMin(nn.Module):
    """The layer x ↦ argmin { f(y | x) : y ∈ 𝒴 }.

    Differentiable with respect to x, the parameters of the network, and the data of the set.

    Args:
        net: a module with a method ``condition(x)``, such as ``PICNN`` or ``FICNN``.
        over: the set 𝒴.
        method: ``implicit`` (``argmin``) or ``unrolled`` gradient descent (``unrolled``).
        transform: applied to the function before it is minimised, say
            ``lambda f: f.mean(0) + negative_entropy(0.1)``.
        options: of the method: ``tol``, ``solver``, … or ``step``, ``iterations``, ``momentum``.

    Attributes:
        solution: the ``Solution`` of the last call, without its graph; None before the first.

    Raises:
        TypeError: ``net`` has no method ``condition``.
        ValueError: the method is unknown.
    """

    solution: Solution | None

    def __init__(
        self,
        net: nn.Module,
        over: ConvexSet,
        method: Literal["implicit", "unrolled"] = "implicit",
        transform: Callable[[ConvexFunction], ConvexFunction] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if not hasattr(net, "condition"):
            raise TypeError(f"net: expected a module with condition(x), got {type(net).__name__}")
        if method not in METHODS:
            raise ValueError(f"method: expected one of {tuple(METHODS)}, got {method!r}")
        self.net = net
        self.over = over
        self.method = method
        self.transform = transform
        self.options = options
        self.solution = None

    @eager
    def forward(
        self, x: Tensor, over: ConvexSet | None = None, start: Tensor | None = None
    ) -> Tensor:
        """y*, of shape ``(*batch, n)``.

        Args:
            x: what ``net.condition`` takes.
            over: a set for this call alone, say one that depends on x.
            start: first points for the solver, shape ``(*batch, n)``, say the last answer.
        """
        f: ConvexFunction = self.net.condition(x)  # type: ignore[operator]
        if self.transform is not None:
            f = self.transform(f)
        over = self.over if over is None else over
        solution = METHODS[self.method](f, over, start=start, **self.options)
        self.solution = Solution(**{k: t.detach() for k, t in vars(solution).items()})
        return solution.y

    def extra_repr(self) -> str:
        return f"over={self.over}, method={self.method!r}"
