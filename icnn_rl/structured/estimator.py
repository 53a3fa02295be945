"""What the scikit-learn estimators share: their parameters, and how they are fitted."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial, wraps
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import track
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from icnn_rl.networks import FICNN, PICNN
from icnn_rl.runs.process import require_device
from icnn_rl.sets import ConvexSet
from icnn_rl.solvers import Solution
from icnn_rl.structured.losses import Loss
from icnn_rl.structured.model import StructuredModel
from icnn_rl.structured.training import Row, Trainer, TrainingOptions

Array = npt.NDArray[Any]
DTYPES = (np.float64, np.float32)  # those that X may keep
BATCH = 1024  # samples predicted in one pass
Convexity = Literal["partial", "full"]

E = TypeVar("E", bound=BaseEstimator)
P = ParamSpec("P")

# A dataclass declares a parameter once: its ``__init__`` has the explicit signature that
# ``get_params`` and ``clone`` read, subclasses inherit the fields and override defaults.
estimator = dataclass(kw_only=True, eq=False, repr=False)


def all_or_nothing(fit: Callable[Concatenate[E, P], E]) -> Callable[Concatenate[E, P], E]:
    """A ``fit`` that leaves the estimator as it was, fitted or not, where it fails."""

    @wraps(fit)
    def whole(self: E, /, *args: P.args, **kwargs: P.kwargs) -> E:
        before = dict(vars(self))
        try:
            return fit(self, *args, **kwargs)
        except BaseException:  # Ctrl-C as well
            vars(self).clear()
            vars(self).update(before)
            raise

    return whole


@estimator
class TrainedEstimator(BaseEstimator):  # type: ignore[misc]
    """Parameters of a network and of its training.

    Args:
        context: widths of the path on x.
        convex: widths of the convex path.
        epochs: passes over the data, at most.
        batch_size: samples per step, at most.
        learning_rate: of AdamW, at first; lowered to 0 over all epochs.
        weight_decay: of AdamW.
        tol: certified gap, in units of the energy, at which an answer is good enough.
        random_state: seed, generator or None.
        device: where the network lives.
        verbose: whether a progress bar is shown.

    Attributes:
        model_: the fitted network and its set.
        history_: a row of numbers for every epoch.
        n_features_in_: width of X.
    """

    context: Sequence[int] = (200, 200)
    convex: Sequence[int] = (200,)
    epochs: int = 50
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    tol: float = 1e-3
    random_state: int | np.random.RandomState | None = None
    device: str = "cpu"
    verbose: bool = False

    def _options(self) -> TrainingOptions:
        names = [f.name for f in fields(TrainingOptions) if hasattr(self, f.name)]
        return TrainingOptions(**{name: getattr(self, name) for name in names})

    def _run(self, trainer: Trainer) -> None:
        steps = track(trainer.run(), "training", total=trainer.steps, disable=not self.verbose)
        for _ in steps:
            pass
        self.history_ = trainer.history


@estimator
class ICNNEstimator(TrainedEstimator):
    """An estimator whose answer minimises a network f(x, y) over a set.

    X is taken as it is: put a ``StandardScaler`` before the estimator. The network has the
    precision of the X that it is fitted to, float32 or float64.

    Args:
        loss: name of the loss.
        convexity: ``partial`` for a network convex in y, ``full`` for one convex in x and y.
        context: widths of the path on x, for ``partial``.
        activation: of the convex path: ``relu``, ``leaky_relu``, ``softplus``, ``elu`` or
            ``squareplus``.
        validation_fraction: share of the data that is set aside to end with the best epoch; 0 for
            none.
        patience: epochs without a better validation score after which training ends, or None.
        **: the others as for ``TrainedEstimator``.
    """

    loss: str = "max_margin"
    convexity: Convexity = "partial"
    activation: str = "softplus"
    validation_fraction: float = 0.0
    patience: int | None = None

    def infer(self, X: Any) -> Solution:
        """The minimisers ŷ, ``(N, n)``, with values and certified gaps."""
        x = self._inputs(X)  # first: it refuses an estimator that is not fitted
        return self.model_.infer(x)

    def _network(self, x_dim: int, y_dim: int) -> PICNN | FICNN:
        widths = tuple(self.convex)
        if self.convexity == "full":
            return FICNN(x_dim, y_dim, widths, self.activation)
        if self.convexity == "partial":
            return PICNN(x_dim, y_dim, tuple(self.context), widths, self.activation)
        raise ValueError(f"convexity: expected 'partial' or 'full', got {self.convexity!r}")

    def _fit(
        self,
        x: Array,
        y: Array,
        over: ConvexSet,
        loss: Loss,
        score: Callable[[StructuredModel, Tensor, Tensor], float],
        curvature: float = 0.0,
    ) -> None:
        """Train on numbers.

        Args:
            x: ``(N, m)``.
            y: ``(N, n)``.
            over: the set of answers.
            loss: what is minimised.
            score: of a model on held-out samples, the higher the better.
            curvature: of the energy.
        """
        require_device(self.device)
        random = check_random_state(self.random_state)
        seed = int(random.randint(2**31))
        held_out = math.ceil(self.validation_fraction * len(x))
        if not 0 <= held_out < len(x):
            raise ValueError(
                "validation_fraction: expected a share >= 0 that leaves samples to train on, got "
                f"{self.validation_fraction} of {len(x)}"
            )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            dtype = torch.tensor(x[:0]).dtype
            net = self._network(x.shape[1], y.shape[1]).to(self.device, dtype)
            model = StructuredModel(net, over, curvature, self.tol)
            order = random.permutation(len(x))
            (x_val, y_val), (x_train, y_train) = (
                tuple(torch.tensor(a[rows], dtype=dtype, device=self.device) for a in (x, y))
                for rows in np.split(order, [held_out])
            )

            def validate() -> Row:
                return {"score": score(model, x_val, y_val)}

            objective = partial(loss, model)
            validation = validate if held_out else None
            options = self._options()
            self._run(Trainer(net, objective, x_train, y_train, options, validation, seed))
        self.model_ = model

    def _inputs(self, X: Any) -> Tensor:
        """X, checked, as the network wants it.

        Raises:
            NotFittedError: there is no network yet.
            ValueError: X has another width than in training, or holds NaN or infinity.
        """
        check_is_fitted(self)
        x = validate_data(self, X, dtype=DTYPES, reset=False)
        net = self.model_.net
        assert isinstance(net, nn.Module)
        return torch.tensor(x).to(next(net.parameters()))  # its dtype and device
