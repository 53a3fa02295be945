"""Classification: the class is the minimiser of an energy over the simplex."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from icnn_rl.sets import Simplex
from icnn_rl.solvers import Solution
from icnn_rl.structured.estimator import Array, ICNNEstimator
from icnn_rl.structured.losses import ArgMinError, FenchelYoung, Hamming, Loss, MaxMargin
from icnn_rl.structured.model import StructuredModel
from icnn_rl.terms import negative_shannon_entropy, quadratic

ENTROPY = negative_shannon_entropy(1.0)
ZERO_ONE = Hamming(0.5)  # on the simplex


def vertex_energies(model: StructuredModel, x: Tensor, n: int) -> Tensor:
    """f̃(x, eₖ) for every class k, ``(B, n)``."""
    f = model.energy(x)
    vertices = torch.eye(n, dtype=x.dtype, device=x.device)
    return torch.stack([f.value(vertex) for vertex in vertices], -1)


def accuracy(model: StructuredModel, x: Tensor, y: Tensor) -> float:
    """Share of samples whose least vertex is that of y."""
    with torch.no_grad():
        hits = vertex_energies(model, x, y.shape[1]).argmin(-1) == y.argmax(-1)
        return hits.double().mean().item()


def classification_loss(name: str, n: int) -> Loss:
    """The loss of a name, for n classes.

    Raises:
        ValueError: there is none of that name.
    """
    losses: dict[str, Loss] = {
        "max_margin": MaxMargin(ZERO_ONE),
        "log_likelihood": FenchelYoung(ENTROPY),
        "implicit": ArgMinError(regularizer=ENTROPY),
        "unrolled": ArgMinError(steps=10, step=0.3, regularizer=quadratic(1.0, torch.zeros(n))),
    }
    if name not in losses:
        raise ValueError(f"loss: expected one of {tuple(losses)}, got {name!r}")
    return losses[name]


class ICNNClassifier(ClassifierMixin, ICNNEstimator):  # type: ignore[misc]
    """Classification with an input-convex network f(x, y), y on the probability simplex.

        class(x) = argminₖ f(x, eₖ),      ŷ(x) = argmin { f(x, y) : y ≥ 0, Σₖ yₖ = 1 }

    Learnt by margins, the minimum over the simplex lies at a vertex for all but the most doubtful
    x, and then the two agree; ``infer`` gives ŷ with its certified gap.

    Args:
        loss: ``max_margin``; ``log_likelihood``, which gives probabilities; ``implicit`` or
            ``unrolled``, which differentiate the squared error of ŷ, f made strongly convex.
        **: the others as for ``ICNNEstimator``.

    Attributes:
        classes_: the classes.
        **: the others as for ``ICNNEstimator``.

    Source: Amos & Kolter, "Input-Convex Deep Networks", ICLR workshop 2016.
    """

    def fit(self, X: Any, y: Any) -> ICNNClassifier:
        """Learn from samples and their classes.

        Args:
            X: ``(N, m)``, finite numbers.
            y: ``(N,)``, two classes or more.

        Raises:
            ValueError: an argument has a wrong value or shape.
        """
        X, y = validate_data(self, X, y, dtype=np.float32)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        n = len(self.classes_)
        if n < 2:
            raise ValueError(f"y: expected at least two classes, got only {self.classes_.tolist()}")
        self._fit(X, np.eye(n)[codes], Simplex(), classification_loss(self.loss, n), accuracy)
        return self

    def predict(self, X: Any) -> Array:
        """The class of each sample, ``(N,)``."""
        energies = self.energies(X)
        return np.asarray(self.classes_[energies.argmin(1)])

    def energies(self, X: Any) -> Array:
        """f(x, eₖ) for every sample and class, ``(N, n)``."""
        check_is_fitted(self)
        x = self._tensor(validate_data(self, X, dtype=np.float32, reset=False))
        with torch.no_grad():
            return vertex_energies(self.model_, x, len(self.classes_)).cpu().numpy()

    def decision_function(self, X: Any) -> Array:
        """-f(x, eₖ), ``(N, n)``; for two classes that of the second less the first, ``(N,)``."""
        scores = -self.energies(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    @available_if(lambda self: self.loss == "log_likelihood")
    def predict_proba(self, X: Any) -> Array:
        """argmin { f(x, y) + Σₖ yₖ log yₖ } over the simplex, ``(N, n)``."""
        check_is_fitted(self)
        x = self._tensor(validate_data(self, X, dtype=np.float32, reset=False))
        with torch.no_grad():
            y = self.model_.solve(self.model_.energy(x) + ENTROPY).y.double()
        return (y / y.sum(1, keepdim=True)).cpu().numpy()

    def infer(self, X: Any) -> Solution:
        """ŷ over the simplex, with values and certified gaps."""
        check_is_fitted(self)
        return self._infer(validate_data(self, X, dtype=np.float32, reset=False))
