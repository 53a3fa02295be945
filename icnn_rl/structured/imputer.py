"""Imputation: missing entries minimise an energy, the known ones being fixed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.base import OneToOneFeatureMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from icnn_rl.adjoints import argmin
from icnn_rl.functions import Restriction, quadratic
from icnn_rl.networks import PICNN
from icnn_rl.runs.process import require_device
from icnn_rl.sets import Box
from icnn_rl.solvers import Solution
from icnn_rl.structured.estimator import (
    DTYPES,
    Array,
    TrainedEstimator,
    all_or_nothing,
    estimator,
)
from icnn_rl.structured.losses import LossValue, mean_evaluations
from icnn_rl.structured.model import StructuredModel
from icnn_rl.structured.training import Trainer

RIDGES = (0.001, 0.003, 0.01, 0.03, 0.1)
FACTORED_ENTRIES = 2**22  # of all matrices that are factored in one batch: bounds the memory


class RowEnergy(nn.Module):
    """An energy of the missing entries of a row v, given the known ones.

        E(v) = 1/2 (v - μ)ᵀ Σ⁻¹ (v - μ) + f(v; v_o, o),      v_o fixed

    with o the set of known entries and f a network convex in v. At first f = 0, and the minimiser
    is the conditional mean of the normal distribution.

    Args:
        mean: μ, ``(n,)``.
        covariance: Σ, ``(n, n)``.
        over: the range of each entry; known entries outside are clipped to it.
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
    """The squared error of known entries hidden at random, by implicit differentiation.

        L = 1/2 Σⱼ∈h (v̂ⱼ - vⱼ)²,      v̂ = argmin E, the entries h of v being hidden

    Args:
        x: rows, ``(B, n)``, NaN where missing.
        y, start: not used; a row is its own target.
    """
    share = 0.05 + 0.6 * torch.rand(len(x), 1).to(x)  # of a row's known entries, to be hidden
    hidden = ~x.isnan() & (torch.rand(x.shape).to(x) < share)
    f = model.energy(x.masked_fill(hidden, torch.nan))
    solution = argmin(f, model.over, model.tol, solver=model.solver)
    value = torch.where(hidden, solution.y - x.nan_to_num(0.0), 0.0).square().sum(-1) / 2
    return LossValue(value, None, 1.0, mean_evaluations(solution))


@estimator
class ICNNImputer(OneToOneFeatureMixin, TransformerMixin, TrainedEstimator):  # type: ignore[misc]
    """Fill missing entries with the minimisers of a learnt energy, in the range of their columns.

    The energy of a row is the energy of a normal distribution, estimated from the known entries,
    plus an input-convex network, trained to restore known entries that are hidden from it; see
    ``RowEnergy``. Any entries of a row may be missing, in training as well. Columns are
    standardised internally.

    Args:
        context: widths of the network's path on the known entries.
        ridge: variance > 0 that is added to the variances of the normal distribution, in standard
            units; None for the one of ``RIDGES`` that best restores known entries.
        epochs: passes over the data; 0 for the normal distribution alone.
        weight_decay: of AdamW; pulls towards the normal distribution.
        **: the others as for ``TrainedEstimator``.

    Attributes:
        model_: the energy and the range of the entries, standardised.
        center_: means of the columns, ``(n,)``.
        scale_: standard deviations of the columns, or 1 where that is 0, ``(n,)``.
        feature_names_in_: names of the columns, where X had names.
        **: the others as for ``TrainedEstimator``.

    Source: Amos, Xu & Kolter, "Input Convex Neural Networks", ICML 2017.
    """

    context: Sequence[int] = (128, 128)
    convex: Sequence[int] = (64,)
    ridge: float | None = None
    learning_rate: float = 1e-2
    weight_decay: float = 0.3

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
                self._run(trainer)
        return self

    def trainer(self, X: Any) -> Trainer:
        """Estimate the normal distribution; the ``Trainer`` returned does the rest of ``fit``.

        For callers who follow, stop or resume the training.

        Args:
            X: as for ``fit``.

        Raises:
            ValueError: an argument has a wrong value or shape, or ``epochs`` is 0.
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
        batch_size = max(1, FACTORED_ENTRIES // X.shape[1] ** 2)
        return self.model_.infer(rows, batch_size=batch_size)

    def _begin(self, X: Any) -> Trainer | None:
        """Estimate the normal distribution, and build a network and its trainer."""
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
        some = rows[torch.randperm(len(rows))[:10_000]].double()  # more hardly change it
        ridge = best_ridge(some, RIDGES, 0.2) if self.ridge is None else self.ridge
        mean, covariance = normal_distribution(some, ridge)
        over = Box(_column_minima(rows), -_column_minima(-rows))
        net = RowEnergy(mean, covariance, over, tuple(self.context), tuple(self.convex))
        net.to(self.device, rows.dtype)
        # Newton's method also for many columns: the Hessian of a normal distribution is constant.
        self.model_ = StructuredModel(net, over, tol=self.tol, solver="newton")
        if not self.epochs:
            return None
        rows = rows.to(self.device)
        objective = partial(hidden_error, self.model_)
        return Trainer(net, objective, rows, rows, self._options(), seed=seed)

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


def _column_minima(rows: Tensor) -> Tensor:
    """The smallest known entry of each column."""
    return rows.nan_to_num(torch.inf).amin(0)


def normal_distribution(
    rows: Tensor, ridge: float, tol: float = 1e-3, max_iterations: int = 100
) -> tuple[Tensor, Tensor]:
    """The most likely mean and covariance of rows with missing entries (expectation maximisation).

        v̂ = μ + Σ_·o Σ_oo⁻¹ (v_o - μ_o),      C = Σ - Σ_·o Σ_oo⁻¹ Σ_o·
        μ ← mean of v̂,      Σ ← mean of (v̂ - μ)(v̂ - μ)ᵀ + C, plus ridge · I

    with o the entries of a row v that are known.

    Args:
        rows: ``(N, n)``, NaN where missing, of columns whose scales are about one.
        ridge: a variance > 0 that is added to every column's.
        tol: change of μ and Σ at which to stop.
        max_iterations: passes over the rows at most.

    Returns:
        μ, ``(n,)``, and Σ, ``(n, n)``.

    Source: Dempster, Laird & Rubin, "Maximum likelihood from incomplete data via the EM algorithm",
    Journal of the Royal Statistical Society B 39, 1977.
    """
    number, n = rows.shape
    known = ~rows.isnan()
    mean = torch.where(known, rows, 0.0).sum(0) / known.sum(0).clamp(min=1)
    identity = torch.eye(n).to(rows)
    covariance = identity
    chunk = max(1, FACTORED_ENTRIES // n**2)
    for _ in range(max_iterations):
        filled = []
        explained = torch.zeros_like(covariance)  # the sum of Σ_oo⁻¹ Σ_o·, zero in missing rows
        for v in rows.split(chunk):
            deviation, gain = _conditional(v, mean, covariance)
            filled.append(deviation)
            explained += gain.sum(0)
        deviations = torch.cat(filled)
        shift = deviations.mean(0)
        deviations = deviations - shift
        spread = deviations.mT @ deviations / number
        updated = spread + covariance - covariance @ explained / number + ridge * identity
        updated = (updated + updated.mT) / 2
        change = torch.maximum(shift.abs().max(), (updated - covariance).abs().max())
        mean, covariance = mean + shift, updated
        if change <= tol:
            break
    return mean, covariance


def best_ridge(rows: Tensor, ridges: Sequence[float], share: float) -> float:
    """The ridge that best restores known entries, some of them hidden at random.

    Args:
        rows: as for ``normal_distribution``.
        ridges: candidates.
        share: of the known entries that are hidden.
    """
    hidden = ~rows.isnan() & (torch.rand(rows.shape).to(rows) < share)
    left = rows.masked_fill(hidden, torch.nan)

    def error(ridge: float) -> float:
        mean, covariance = normal_distribution(left, ridge)
        chunks = left.split(max(1, FACTORED_ENTRIES // rows.shape[1] ** 2))
        filled = mean + torch.cat([_conditional(v, mean, covariance)[0] for v in chunks])
        return (filled - rows)[hidden].square().sum().item()

    return min(ridges, key=error)


def _conditional(rows: Tensor, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """v̂ - μ, and Σ_oo⁻¹ Σ_o· with zeros in the rows that are missing."""
    k = (~rows.isnan()).to(rows)
    block = covariance * k.unsqueeze(-1) * k.unsqueeze(-2) + torch.diag_embed(1 - k)
    gain = torch.cholesky_solve(covariance * k.unsqueeze(-1), torch.linalg.cholesky(block))
    deviation = torch.where(k > 0, rows - mean, 0.0)
    return (deviation.unsqueeze(-2) @ gain).squeeze(-2), gain
