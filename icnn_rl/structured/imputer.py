"""Imputation: missing entries are those that minimise an energy, the known ones being fixed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from rich.progress import track
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from icnn_rl.adjoints import argmin
from icnn_rl.functions import Restriction, quadratic
from icnn_rl.networks import PICNN
from icnn_rl.runs.device import require_device
from icnn_rl.sets import Box
from icnn_rl.solvers import Solution
from icnn_rl.structured.estimator import DTYPES, Array, all_or_nothing
from icnn_rl.structured.gaussian import ENTRIES, best_ridge, normal_distribution
from icnn_rl.structured.losses import LossValue
from icnn_rl.structured.model import StructuredModel
from icnn_rl.structured.training import Trainer, TrainingOptions

ROWS = 10_000  # more of them do not make the normal distribution better
RIDGES = (0.001, 0.003, 0.01, 0.03, 0.1)
HIDDEN = 0.2  # share of the known entries by which a ridge is chosen
LEAST_HIDDEN, MOST_HIDDEN = 0.05, 0.65  # share of a row's known entries that training hides


class RowEnergy(nn.Module):
    """An energy of the missing entries of a row v, given the known ones.

        E(v) = 1/2 (v - μ)ᵀ Σ⁻¹ (v - μ) + f(v; v_o, o),      v_o fixed

    with o the set of known entries and f a network that is convex in v. It starts at f = 0, where
    the minimiser is the conditional mean of the normal distribution.

    Args:
        mean: μ, ``(n,)``.
        covariance: Σ, ``(n, n)``.
        over: the range of each entry; known ones outside count as its end.
        context: widths of the path on (v_o, o).
        convex: widths of the convex path.
    """

    def __init__(
        self,
        mean: Tensor,
        covariance: Tensor,
        over: Box,
        context: tuple[int, ...],
        convex: tuple[int, ...],
    ) -> None:
        super().__init__()
        n = len(mean)
        factor = torch.linalg.cholesky(covariance)
        root = torch.linalg.solve_triangular(factor, torch.eye(n).to(factor), upper=False)
        self.root: Tensor
        self.offset: Tensor
        self.register_buffer("root", root)  # RᵀR = Σ⁻¹
        self.register_buffer("offset", -root @ mean)
        self.over = over
        self.net = PICNN(2 * n, n, context, convex, "softplus").to(mean)
        with torch.no_grad():
            for weight in (self.net.path.weight_z()[-1], self.net.path.weight_y()[-1]):
                weight.zero_()

    def condition(self, rows: Tensor) -> Restriction:
        """E as a function of the missing entries.

        Args:
            rows: ``(B, n)``, NaN where missing.
        """
        known = ~rows.isnan()
        values = self.over.project(rows.nan_to_num(0.0))
        normal = quadratic(1.0, torch.zeros_like(self.offset)).affine(self.root, self.offset)
        context = torch.cat([torch.where(known, values, 0.0), known.to(values)], -1)
        return (normal + self.net.condition(context)).restrict(known, values)

    def project_(self) -> None:
        """P₊."""
        self.net.project_()


def hidden_error(model: StructuredModel, x: Tensor, y: Tensor, start: Tensor | None) -> LossValue:
    """The squared error of known entries that are hidden at random, by implicit differentiation.

        L = 1/2 Σⱼ∈h (v̂ⱼ - vⱼ)²,      v̂ = argmin E, with the entries h of v taken as missing

    Args:
        x: rows, ``(B, n)``, NaN where missing.
        y, start: not used; a row is its own target.
    """
    share = LEAST_HIDDEN + (MOST_HIDDEN - LEAST_HIDDEN) * torch.rand(len(x), 1).to(x)
    hidden = ~x.isnan() & (torch.rand(x.shape).to(x) < share)
    f = model.energy(x.masked_fill(hidden, torch.nan))
    solution = argmin(f, model.over, model.tol, solver=model.solver)
    value = torch.where(hidden, solution.y - x.nan_to_num(0.0), 0.0).square().sum(-1) / 2
    evaluations = solution.evaluations.double().mean().item()
    return LossValue(value, solution.y.detach(), 1.0, evaluations)


class ICNNImputer(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Fill missing entries with the minimisers of a learnt energy, in the range of their columns.

    The energy of a row is that of a normal distribution, estimated from the known entries, plus an
    input-convex network, trained to give back known entries that are hidden from it; see
    ``RowEnergy``. Which entries are missing may differ from row to row, in training as well.
    Columns are standardised inside.

    Args:
        context: widths of the network's path on the known entries.
        convex: widths of its convex path.
        ridge: variance > 0 that is added to that of the normal distribution, in standard units;
            None for the one of ``RIDGES`` that best gives back known entries.
        epochs: passes over the data; 0 leaves the normal distribution alone.
        batch_size: rows per step.
        learning_rate: of AdamW, at first; lowered to 0 over all epochs.
        weight_decay: of AdamW; pulls towards the normal distribution.
        tol: certified gap, in units of the energy, at which an answer is good enough.
        random_state: seed, generator or None.
        device: where the network lives.
        verbose: whether a progress bar is shown.

    Attributes:
        model_: the energy and the range of the entries, standardised.
        center_: means of the columns, ``(n,)``.
        scale_: standard deviations of the columns, or 1 where that is 0, ``(n,)``.
        history_: a row of numbers for every epoch.
        n_features_in_: n.
        feature_names_in_: names of the columns, where X had names.

    Source: Amos, Xu & Kolter, "Input Convex Neural Networks", ICML 2017.
    """

    def __init__(
        self,
        *,
        context: Sequence[int] = (128, 128),
        convex: Sequence[int] = (64,),
        ridge: float | None = None,
        epochs: int = 50,
        batch_size: int = 64,
        learning_rate: float = 1e-2,
        weight_decay: float = 0.3,
        tol: float = 1e-3,
        random_state: int | np.random.RandomState | None = None,
        device: str = "cpu",
        verbose: bool = False,
    ) -> None:
        self.context = context
        self.convex = convex
        self.ridge = ridge
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.tol = tol
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    @all_or_nothing
    def fit(self, X: Any, y: Any = None) -> ICNNImputer:
        """Learn the energy.

        Args:
            X: ``(N, n)``, numbers, NaN where missing; each column with a known entry.
            y: not used.

        Raises:
            ValueError: an argument has a wrong value or shape.
            FloatingPointError: training diverged.
        """
        with torch.random.fork_rng():
            trainer = self._begin(X)
            self.history_ = []
            if trainer is not None:
                steps = track(
                    trainer.run(), "training", total=trainer.steps, disable=not self.verbose
                )
                for _ in steps:
                    pass
                self.history_ = trainer.history
        return self

    def trainer(self, X: Any) -> Trainer:
        """What is left of ``fit`` once the normal distribution is estimated: run it to the end.

        For training that others follow, stop and go on with.

        Args:
            X: as for ``fit``.

        Raises: as ``fit``; and ValueError: there are no epochs.
        """
        with torch.random.fork_rng():
            trainer = self._begin(X)
        if trainer is None:
            raise ValueError(f"epochs: expected a number >= 1, got {self.epochs}")
        return trainer

    def transform(self, X: Any) -> Array:
        """X with its missing entries filled, and the known ones as they are.

        Args:
            X: ``(N, n)``, numbers, NaN where missing; rows without a known entry are filled too.

        Returns:
            ``(N, n)``, of the type of X.

        Raises:
            NotFittedError: ``fit`` was not called.
            ValueError: X has another width, or holds infinity.
        """
        check_is_fitted(self)
        filled = self._checked(X, reset=False).copy()
        missing = np.isnan(filled)
        holes = missing.any(1)
        if holes.any():
            answers = self.center_ + self.scale_ * self._solve(filled[holes]).y.cpu().numpy()
            filled[missing] = answers[missing[holes]]
        return filled

    def infer(self, X: Any) -> Solution:
        """The minimisers, in standard units, with their energies and certified gaps."""
        check_is_fitted(self)
        return self._solve(self._checked(X, reset=False))

    def _solve(self, X: Array) -> Solution:
        net = self.model_.net
        assert isinstance(net, RowEnergy)
        rows = self._standardised(X).to(net.offset)  # its dtype and device
        batch_size = max(1, ENTRIES // X.shape[1] ** 2)
        return self.model_.infer(rows, batch_size=batch_size)

    def _begin(self, X: Any) -> Trainer | None:
        """Estimate the normal distribution, draw a network, and say how it is to be trained."""
        require_device(self.device)
        X = self._checked(X, reset=True)
        if self.ridge is not None and not self.ridge > 0:
            raise ValueError(f"ridge: expected None or a number > 0, got {self.ridge}")
        empty = np.isnan(X).all(0)
        if empty.any():
            names = getattr(self, "feature_names_in_", np.arange(X.shape[1]))[empty]
            raise ValueError(
                "X: expected a known entry in every column, got only NaN in "
                f"{', '.join(map(str, names))}"
            )
        self.center_ = np.nanmean(X, 0, dtype=np.float64)
        spread = np.nanstd(X, 0, dtype=np.float64)
        self.scale_ = np.where(spread > 0, spread, 1)
        rows = self._standardised(X).to(torch.tensor(X[:0]).dtype)
        seed = int(check_random_state(self.random_state).randint(2**31))
        torch.manual_seed(seed)
        some = rows[torch.randperm(len(rows))[:ROWS]].double()
        ridge = best_ridge(some, RIDGES, HIDDEN) if self.ridge is None else self.ridge
        mean, covariance = normal_distribution(some, ridge)
        over = Box(_least(rows), -_least(-rows))
        net = RowEnergy(mean, covariance, over, tuple(self.context), tuple(self.convex))
        net.to(self.device, rows.dtype)
        # Newton's method also for many columns: a normal distribution has a Hessian at no cost.
        self.model_ = StructuredModel(net, over, tol=self.tol, solver="newton")
        if not self.epochs:
            return None
        options = TrainingOptions(
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            warm_start=False,
        )
        rows = rows.to(self.device)
        return Trainer(net, partial(hidden_error, self.model_), rows, rows, options, seed=seed)

    def _checked(self, X: Any, reset: bool) -> Array:
        checked: Array = validate_data(
            self, X, dtype=DTYPES, ensure_all_finite="allow-nan", reset=reset
        )
        return checked

    def _standardised(self, X: Array) -> Tensor:
        """X in standard units, float64."""
        return torch.tensor((X - self.center_) / self.scale_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _least(rows: Tensor) -> Tensor:
    """The least known entry of each column."""
    return rows.nan_to_num(torch.inf).amin(0)
