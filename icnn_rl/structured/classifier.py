"""Classification: the class is the minimiser of an energy over the simplex."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data
from torch import Tensor

from icnn_rl.functions import negative_shannon_entropy, quadratic
from icnn_rl.runs.process import require_device
from icnn_rl.sets import Simplex
from icnn_rl.structured.estimator import BATCH, DTYPES, Array, ICNNEstimator, all_or_nothing
from icnn_rl.structured.losses import (
    ArgMinError,
    FenchelYoung,
    Hamming,
    Loss,
    MaxMargin,
    select_loss,
)
from icnn_rl.structured.model import StructuredModel

ENTROPY = negative_shannon_entropy(1.0)
ZERO_ONE = Hamming(0.5)  # the zero-one loss, at the vertices of the simplex


def vertex_energies(model: StructuredModel, x: Tensor) -> Tensor:
    """f̃(x, eₖ) for every class k, ``(B, n)``."""
    f = model.energy(x)
    assert f.dim is not None
    vertices = torch.eye(f.dim, dtype=x.dtype, device=x.device)
    return torch.stack([f.value(vertex) for vertex in vertices], -1)


def probabilities(model: StructuredModel, x: Tensor) -> Tensor:
    """argmin { f̃(x, y) + Σₖ yₖ log yₖ : y in the simplex }, ``(B, n)``."""
    y = model.solve(model.energy(x) + ENTROPY).y
    return y / y.sum(-1, keepdim=True)


@torch.no_grad()
def _batched(
    function: Callable[[StructuredModel, Tensor], Tensor], model: StructuredModel, x: Tensor
) -> Array:
    return torch.cat([function(model, rows) for rows in x.split(BATCH)]).cpu().numpy()


def classification_loss(name: str, n: int, device: str = "cpu") -> Loss:
    """The loss of a name, for n classes.

    Raises:
        ValueError: there is none of that name.
    """
    center = torch.zeros(n, device=device)
    losses: dict[str, Loss] = {
        "max_margin": MaxMargin(ZERO_ONE),
        "log_likelihood": FenchelYoung(ENTROPY),
        "implicit": ArgMinError(regularizer=ENTROPY),
        "unrolled": ArgMinError(steps=10, step=0.1, regularizer=quadratic(4.0, center)),
    }
    return select_loss(name, losses)


class ICNNClassifier(ClassifierMixin, ICNNEstimator):  # type: ignore[misc]
    """Classification with an input-convex network f(x, y), y on the probability simplex.

        class(x) = argminₖ f(x, eₖ),      ŷ(x) = argmin { f(x, y) : y ≥ 0, Σₖ yₖ = 1 }

    With ``max_margin`` the minimum over the simplex lies at a vertex for all but the most doubtful
    x, and then the two agree; ``infer`` gives ŷ with its certified gap. With ``log_likelihood`` the
    class is the most probable one.

    Args:
        loss: ``max_margin``; ``log_likelihood``, which gives probabilities; ``implicit`` or
            ``unrolled``, which differentiate the squared error of ŷ, f made strongly convex.
        **: the others as for ``ICNNEstimator``.

    Attributes:
        classes_: the classes.
        **: the others as for ``ICNNEstimator``.

    Source: Amos & Kolter, "Input-Convex Deep Networks", ICLR workshop 2016.
    """

    @all_or_nothing
    def fit(self, X: Any, y: Any) -> ICNNClassifier:
        """Learn from samples and their classes.

        Args:
            X: ``(N, m)``, finite numbers.
            y: ``(N,)``, two classes or more.

        Raises:
            ValueError: an argument has a wrong value or shape.
            FloatingPointError: training diverged.
        """
        require_device(self.device)
        X, y = validate_data(self, X, y, dtype=DTYPES)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        n = len(self.classes_)
        if n < 2:
            raise ValueError(f"y: expected two classes or more, got one class, {self.classes_[0]}")
        loss = classification_loss(self.loss, n, self.device)

        def accuracy(model: StructuredModel, x: Tensor, y: Tensor) -> float:
            return float(np.mean(self._scores(model, x).argmax(1) == y.argmax(1).cpu().numpy()))

        self._fit(X, np.eye(n)[codes], Simplex(), loss, accuracy)
        return self

    def predict(self, X: Any) -> Array:
        """The class of each sample, ``(N,)``."""
        x = self._inputs(X)
        return np.asarray(self.classes_[self._scores(self.model_, x).argmax(1)])

    def energies(self, X: Any) -> Array:
        """f(x, eₖ) for every sample and class, ``(N, n)``."""
        x = self._inputs(X)
        return _batched(vertex_energies, self.model_, x)

    def decision_function(self, X: Any) -> Array:
        """Scores of the classes, the higher the likelier.

        Returns:
            -f(x, eₖ) or, for ``log_likelihood``, the logarithms of the probabilities, ``(N, n)``;
            for two classes the score of the second less that of the first, ``(N,)``.
        """
        x = self._inputs(X)
        scores = self._scores(self.model_, x)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    @available_if(lambda self: self.loss == "log_likelihood")  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> Array:
        """argmin { f(x, y) + Σₖ yₖ log yₖ } over the simplex, ``(N, n)``."""
        x = self._inputs(X)
        return _batched(probabilities, self.model_, x)

    def _scores(self, model: StructuredModel, x: Tensor) -> Array:
        if self.loss == "log_likelihood":
            proba = _batched(probabilities, model, x)
            return np.asarray(np.log(proba.clip(np.finfo(proba.dtype).tiny)))
        return -_batched(vertex_energies, model, x)
