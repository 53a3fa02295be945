"""Regression: the answer is the minimiser of an energy over a box."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from sklearn.base import MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import validate_data
from torch import Tensor

from icnn_rl.runs.process import require_device
from icnn_rl.sets import Box
from icnn_rl.solvers import Solution
from icnn_rl.structured.estimator import DTYPES, Array, ICNNEstimator, all_or_nothing
from icnn_rl.structured.losses import ArgMinError, Loss, MaxMargin, SquaredError, select_loss
from icnn_rl.structured.model import StructuredModel

CURVATURE = 1.0  # of the energy, in standard units
LOSSES: dict[str, Loss] = {
    "max_margin": MaxMargin(SquaredError(CURVATURE / 2)),
    "implicit": ArgMinError(),
    "unrolled": ArgMinError(steps=10, step=0.3),
}


def negative_squared_error(model: StructuredModel, x: Tensor, y: Tensor) -> float:
    """Minus the mean squared error."""
    return -(model.infer(x).y - y).square().mean().item()


class ICNNRegressor(MultiOutputMixin, RegressorMixin, ICNNEstimator):  # type: ignore[misc]
    """Regression, on several targets at once, with a network f(x, y) that is convex in y.

        ŷ(x) = argmin { f(x, y) + 1/2 ‖y‖² : lower ≤ y ≤ upper }

    y are the targets in standard units; the bounds lie one standard deviation beyond those seen. A
    plain network m(x) is the special case f(x, y) = -m(x)ᵀy; the rest of f says how the error of
    one target affects the others.

    Args:
        loss: ``max_margin``, the margin being 1/4 ‖y - yᵢ‖²; ``implicit`` or ``unrolled``, which
            differentiate the squared error of ŷ.
        activation: a smooth one for ``implicit``, unless X is of float64.
        **: the others as for ``ICNNEstimator``.

    Attributes:
        mean_, scale_: of the targets, ``(n,)``.
        **: the others as for ``ICNNEstimator``.

    Source: Amos & Kolter, "Input-Convex Deep Networks", ICLR workshop 2016.
    """

    @all_or_nothing
    def fit(self, X: Any, y: Any) -> ICNNRegressor:
        """Learn from samples and their targets.

        Args:
            X: ``(N, m)``, finite numbers.
            y: ``(N,)`` or ``(N, n)``, finite numbers.

        Raises:
            ValueError: an argument has a wrong value or shape.
            FloatingPointError: training diverged.
        """
        require_device(self.device)
        X, y = validate_data(self, X, y, dtype=DTYPES, multi_output=True, y_numeric=True)
        targets = np.asarray(y, np.float64).reshape(len(y), -1)
        self._one_target = y.ndim == 1
        self.mean_ = targets.mean(0)
        deviation = targets.std(0)
        self.scale_ = np.where(deviation > 0, deviation, 1.0)
        targets = (targets - self.mean_) / self.scale_
        bounds = (targets.min(0) - 1.0, targets.max(0) + 1.0)
        box = Box(*(torch.as_tensor(b, device=self.device) for b in bounds))
        loss = select_loss(self.loss, LOSSES)
        self._fit(X, targets, box, loss, negative_squared_error, CURVATURE)
        return self

    def predict(self, X: Any) -> Array:
        """The targets of each sample, ``(N,)`` or ``(N, n)`` as those seen."""
        y = self.infer(X).y.cpu().numpy()
        return np.asarray(y[:, 0] if self._one_target else y)

    def infer(self, X: Any) -> Solution:
        """ŷ in the units of the targets, float64, ``(N, n)``, with energies and certified gaps."""
        solution = super().infer(X)
        y = solution.y.double()  # in float32 a large mean would swallow the answers
        scale, mean = (torch.as_tensor(a).to(y) for a in (self.scale_, self.mean_))
        return replace(solution, y=mean + scale * y)
