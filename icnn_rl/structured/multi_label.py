"""Multi-label classification: a set of labels is the minimiser of an energy over a box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import column_or_1d, validate_data
from torch import Tensor, nn

from icnn_rl.functions import ConvexFunction, linear, negative_entropy
from icnn_rl.networks import FICNN, PICNN, Dense, Encoder
from icnn_rl.sets import Box
from icnn_rl.solvers import Solution
from icnn_rl.structured.estimator import DTYPES, Array, ICNNEstimator, all_or_nothing, estimator
from icnn_rl.structured.f1 import Threshold, choose, f1_scores, tune_threshold
from icnn_rl.structured.losses import FenchelYoung, Loss, MaxMargin, select_loss
from icnn_rl.structured.model import StructuredModel

LABEL_BOX = Box(-1.0, 1.0)  # +1 for a label that a sample has, -1 for one that it has not
ENTROPY = negative_entropy(1.0)


@final
@dataclass(frozen=True)
class LabelErrors:
    """Δ(yᵢ, y) = a · (labels missed) + b · (labels too many), for yᵢ in {-1, 1}ᴸ; linear in y.

    An entry of y between -1 and 1 counts in proportion.

    Args:
        missed: a ≥ 0; above b it favours recall, as F1 does where labels are rare.
        extra: b ≥ 0.

    Raises:
        ValueError: a cost is negative.
    """

    missed: float = 1.0
    extra: float = 1.0
    vertices: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not min(self.missed, self.extra) >= 0:
            raise ValueError(
                f"missed, extra: expected costs >= 0, got {self.missed} and {self.extra}"
            )

    def distance(self, target: Tensor, y: Tensor) -> Tensor:
        return (self.slope(target) * (target - y)).sum(-1)

    def augmented(
        self, model: StructuredModel, f: ConvexFunction, target: Tensor
    ) -> ConvexFunction:
        return model.curved(f) + linear(self.slope(target))

    def slope(self, target: Tensor) -> Tensor:
        """-∂Δ/∂y."""
        return torch.where(target > 0, self.missed / 2, -self.extra / 2)


def label_encoder(x_dim: int, widths: Sequence[int], dropout: float) -> tuple[nn.Module, int]:
    """A feed-forward network between two layers of dropout, and the width of its output."""
    encoder = Encoder((x_dim,), [Dense(width) for width in widths])
    return nn.Sequential(nn.Dropout(dropout), encoder, nn.Dropout(dropout)), encoder.width


def label_network(
    x_dim: int,
    labels: int,
    context: Sequence[int],
    convex: Sequence[int],
    activation: str,
    dropout: float,
) -> PICNN:
    """A network convex in the labels, which begins as a feed-forward network with a logit a label.

    The logits are the slopes of the part of f that is linear in y. They start at full size, which
    makes training several times faster.
    """
    encoder, width = label_encoder(x_dim, context, dropout)
    network = PICNN(width, labels, (), tuple(convex), activation, encoder=encoder)
    with torch.no_grad():
        network.path.raw_y[-1].fill_(1.0)
    return network


def label_loss(name: str, errors: LabelErrors) -> Loss:
    """The loss of a name.

    Raises:
        ValueError: there is none of that name.
    """
    losses: dict[str, Loss] = {
        "log_likelihood": FenchelYoung(ENTROPY),
        "soft_margin": FenchelYoung(ENTROPY, errors),
        "max_margin": MaxMargin(errors),
    }
    return select_loss(name, losses)


def answers(loss: str, model: StructuredModel, x: Tensor) -> Solution:
    """ŷ in [-1, 1]ᴸ: the minimisers of the energy, plus the entropy unless by ``max_margin``."""
    return model.infer(x, regularizer=None if loss == "max_margin" else ENTROPY)


def probabilities(y: Tensor) -> Array:
    """Answers ŷ in [-1, 1]ᴸ as numbers in [0, 1]."""
    return ((1 + y.double()) / 2).clamp(0, 1).cpu().numpy()


@estimator
class ICNNMultiLabelClassifier(ClassifierMixin, ICNNEstimator):  # type: ignore[misc]
    """Any number of labels a sample, with an input-convex network f(x, y), y in [-1, 1]ᴸ.

        ŷ(x) = argmin { f(x, y) + Σⱼ pⱼ log pⱼ + (1 - pⱼ) log(1 - pⱼ) : -1 ≤ y ≤ 1 },  p = (1 + y)/2

    yⱼ is 1 for a label of the sample and -1 for any other. With f linear in y the answer is a
    sigmoid per label; a convex f weighs labels against each other. With the entropy p̂ are the
    marginal probabilities of the closest distribution of independent labels; ``max_margin`` leaves
    the entropy out.

    Args:
        loss: ``log_likelihood``; ``soft_margin``, the same with the margin Δ; ``max_margin``, which
            has no probabilities.
        missed: cost in Δ of a label that is missed.
        extra: cost in Δ of a label too many.
        threshold: a label with a larger p̂ is predicted; ``tuned`` for the threshold with the best
            example-F1 on the samples set aside for validation; ``expected_f1`` for the labels that
            maximise the expected F1 under p̂, at least one per sample.
        dropout: share of x, and of the last context layer, that training leaves out at random.
        **: the others as for ``ICNNEstimator``. Sparse X is made dense.

    Attributes:
        classes_: the numbers of the labels.
        threshold_: the threshold in use; None for ``expected_f1``.
        **: the others as for ``ICNNEstimator``.

    Source: Amos, Xu & Kolter, "Input Convex Neural Networks", ICML 2017, section 6.1.
    """

    loss: str = "log_likelihood"
    missed: float = 1.0
    extra: float = 1.0
    threshold: float | Literal["tuned", "expected_f1"] = 0.5
    context: Sequence[int] = (200,)
    convex: Sequence[int] = (64,)
    dropout: float = 0.0
    tol: float = 1e-2

    @all_or_nothing
    def fit(self, X: Any, y: Any) -> ICNNMultiLabelClassifier:
        """Learn from samples and their labels.

        Args:
            X: ``(N, m)``, finite numbers, dense or sparse.
            y: ``(N, L)``, 1 where a sample has a label and 0 elsewhere, dense or sparse; or two
                classes, ``(N,)``, which count as one label.

        Raises:
            ValueError: an argument has a wrong value or shape.
            FloatingPointError: training diverged.
        """
        X, y = validate_data(self, _dense(X), _dense(y), dtype=DTYPES, multi_output=True)
        self.classes_, labels = encode(y)
        loss = label_loss(self.loss, LabelErrors(self.missed, self.extra))
        self.threshold_ = self._given_threshold()
        self._one_label = labels.shape[1] == 1
        tuned: list[Threshold] = []

        def example_f1(model: StructuredModel, x: Tensor, y: Tensor) -> float:
            truth = (y > 0).long().cpu().numpy()
            p = probabilities(answers(self.loss, model, x).y)
            if self.threshold == "tuned":
                tuned.append(tune_threshold(truth, p))
                return tuned[-1].score
            return f1_scores(truth, choose(p, self.threshold_)).example

        self._fit(X, 2.0 * labels - 1, LABEL_BOX, loss, example_f1)
        if tuned:  # the first of the best, as the network is
            self.threshold_ = max(tuned, key=lambda threshold: threshold.score).value
        return self

    def predict(self, X: Any) -> Array:
        """The labels of each sample, 0 or 1, ``(N, L)``; for two classes the class, ``(N,)``."""
        labels = choose(self._probabilities(X), self.threshold_)
        return np.asarray(self.classes_[labels[:, 0]]) if self._one_label else labels

    @available_if(lambda self: self.loss != "max_margin")  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> Array:
        """p̂, the marginal probability of each label, ``(N, L)``; of each of two classes."""
        p = self._probabilities(X)
        return np.hstack([1 - p, p]) if self._one_label else p

    def decision_function(self, X: Any) -> Array:
        """Log-odds of the labels or, for ``max_margin``, ŷ; ``(N, L)``, of two classes ``(N,)``."""
        p = self._probabilities(X)
        inside = p.clip(1e-7, 1 - 1e-7)
        scores = 2 * p - 1 if self.loss == "max_margin" else np.log(inside) - np.log1p(-inside)
        return np.asarray(scores[:, 0] if self._one_label else scores)

    def energy(self, X: Any, y: Any) -> Array:
        """f(x, y) of sets of labels, ``(N,)``; the lower the better they fit.

        Args:
            X: ``(N, m)``.
            y: ``(N, L)``, 1 where a sample has a label and 0 elsewhere.

        Raises:
            ValueError: an argument has a wrong value or shape.
        """
        x = self._inputs(X)
        labels = indicators(_dense(y))
        expected = (len(x), 1 if self._one_label else len(self.classes_))
        if labels.shape != expected:
            raise ValueError(f"y: expected shape {expected}, got {labels.shape}")
        with torch.no_grad():
            f = self.model_.energy(x)
            return f.value(torch.tensor(2 * labels - 1).to(x)).cpu().numpy()

    def infer(self, X: Any) -> Solution:
        """ŷ in [-1, 1]ᴸ, with values and certified gaps."""
        x = self._inputs(X)
        return answers(self.loss, self.model_, x)

    def _inputs(self, X: Any) -> Tensor:
        return super()._inputs(_dense(X))

    def _network(self, x_dim: int, y_dim: int) -> PICNN | FICNN:
        if self.convexity != "partial":
            return super()._network(x_dim, y_dim)
        return label_network(x_dim, y_dim, self.context, self.convex, self.activation, self.dropout)

    def _probabilities(self, X: Any) -> Array:
        x = self._inputs(X)
        return probabilities(answers(self.loss, self.model_, x).y)

    def _given_threshold(self) -> float | None:
        """The threshold given; None if it is tuned or not used."""
        if self.threshold == "expected_f1":
            return None
        if self.threshold == "tuned":
            if self.validation_fraction > 0:
                return None
            raise ValueError(
                "validation_fraction: expected a number > 0, to tune the threshold with; "
                f"got {self.validation_fraction}"
            )
        if isinstance(self.threshold, str) or not 0 <= self.threshold <= 1:
            raise ValueError(
                "threshold: expected 'tuned', 'expected_f1' or a number in [0, 1], "
                f"got {self.threshold!r}"
            )
        return self.threshold

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.classifier_tags.multi_class = False
        tags.classifier_tags.multi_label = True
        return tags


def encode(y: Array) -> tuple[Array, Array]:
    """The classes, and the labels of each sample as integers 0 or 1, ``(N, L)``.

    Raises:
        ValueError: y is neither an indicator matrix nor two classes.
    """
    kind = type_of_target(y, input_name="y", raise_unknown=True)
    if kind == "multilabel-indicator":
        return np.arange(y.shape[1]), indicators(y)
    if kind != "binary":
        raise ValueError(
            "Only binary classification is supported. The type of the target is "
            f"{kind}: y, expected an indicator matrix (N, L) or two classes"
        )
    classes, codes = np.unique(column_or_1d(y, warn=True), return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"y: expected two classes, got one class, {classes[0]}")
    return classes, codes[:, None]


def indicators(y: Any) -> Array:
    """Labels as integers, ``(N, L)``.

    Raises:
        ValueError: there are entries other than zeros and ones.
    """
    y = np.asarray(y)
    if y.ndim != 2 or not np.isin(y, (0, 1)).all():
        raise ValueError(
            "y: expected an indicator matrix (N, L) of zeros and ones, got an array of shape "
            f"{y.shape} with entries {np.unique(y)[:4].tolist()} …"
        )
    return np.asarray(y, np.int64)


def _dense(array: Any) -> Any:
    return array.toarray() if sp.issparse(array) else array
