"""What the scikit-learn estimators share: their parameters, and the way they are fitted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import track
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from torch import Tensor, nn

from icnn_rl.networks import FICNN, PICNN
from icnn_rl.sets import ConvexSet
from icnn_rl.solvers import Solution
from icnn_rl.structured.losses import Loss
from icnn_rl.structured.model import StructuredModel
from icnn_rl.structured.training import Row, Trainer, TrainingOptions

Array = npt.NDArray[Any]
Convexity = Literal["partial", "full"]


class ICNNEstimator(BaseEstimator):  # type: ignore[misc]
    """Parameters of the network and of its training.

    Args:
        loss: name of the loss.
        convexity: ``partial`` for a network convex in y, ``full`` for one convex in x and y.
        context: widths of the path on x, for ``partial``.
        convex: widths of the convex path.
        activation: of the convex path: ``relu``, ``leaky_relu``, ``softplus`` or ``elu``.
        epochs: passes over the data, at most.
        batch_size: samples per step.
        learning_rate: of AdamW, at first; lowered to 0 over all epochs.
        weight_decay: of AdamW.
        validation_fraction: share of the data that is set aside to end with the best epoch; 0 for
            none.
        patience: epochs without a better validation score after which training ends, or None.
        tol: certified gap at which an answer is good enough.
        random_state: seed, generator or None.
        device: where the network lives.
        verbose: whether a progress bar is shown.

    Attributes:
        model_: the fitted network and its set.
        history_: a row of numbers for every epoch.
        n_features_in_: width of X.
    """

    def __init__(
        self,
        *,
        loss: str = "max_margin",
        convexity: Convexity = "partial",
        context: Sequence[int] = (200, 200),
        convex: Sequence[int] = (200,),
        activation: str = "relu",
        epochs: int = 100,
        batch_size: int = 64,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        validation_fraction: float = 0.0,
        patience: int | None = None,
        tol: float = 1e-3,
        random_state: int | np.random.RandomState | None = None,
        device: str = "cpu",
        verbose: bool = False,
    ) -> None:
        self.loss = loss
        self.convexity = convexity
        self.context = context
        self.convex = convex
        self.activation = activation
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.tol = tol
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    def _network(self, x_dim: int, y_dim: int) -> nn.Module:
        widths = tuple(self.convex)
        if self.convexity == "full":
            return FICNN(y_dim, x_dim, widths, self.activation)
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
        """Train on numbers: x of shape ``(N, m)``, y of shape ``(N, n)``."""
        random = check_random_state(self.random_state)
        seed = int(random.randint(2**31))
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(
                f"validation_fraction: expected a number in [0, 1), got {self.validation_fraction}"
            )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            net = self._network(x.shape[1], y.shape[1]).to(self.device)
            model = StructuredModel(net, over, curvature, self.tol)  # type: ignore[arg-type]
            held_out = round(self.validation_fraction * len(x))
            order = random.permutation(len(x))
            (x_val, y_val), (x_train, y_train) = (
                (self._tensor(x[rows]), self._tensor(y[rows]))
                for rows in np.split(order, [held_out])
            )

            def validate() -> Row:
                return {"score": score(model, x_val, y_val)}

            options = TrainingOptions(
                epochs=self.epochs,
                batch_size=self.batch_size,
                learning_rate=self.learning_rate,
                weight_decay=self.weight_decay,
                patience=self.patience,
            )
            trainer = Trainer(
                net,
                partial(loss, model),
                x_train,
                y_train,
                options,
                validate if held_out else None,
                seed,
            )
            steps = trainer.run()
            if self.verbose:
                steps = track(steps, "training", total=trainer.steps)
            for _ in steps:
                pass
        self.model_ = model
        self.history_ = trainer.history

    def _tensor(self, array: Array) -> Tensor:
        return torch.as_tensor(np.asarray(array), dtype=torch.float32, device=self.device)

    def _infer(self, x: Array) -> Solution:
        return self.model_.infer(self._tensor(x))
