"""The normal distribution that rows with missing entries come from, most likely."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

ENTRIES = 2**22  # of all matrices that are factored side by side


def normal_distribution(
    rows: Tensor, ridge: float, tol: float = 1e-3, max_iterations: int = 100
) -> tuple[Tensor, Tensor]:
    """Mean and covariance by expectation maximisation.

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
    chunk = max(1, ENTRIES // n**2)
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
    """The ridge with which known entries are best given back that are hidden at random.

    Args:
        rows: as for ``normal_distribution``.
        ridges: candidates.
        share: of the known entries that are hidden.
    """
    hidden = ~rows.isnan() & (torch.rand(rows.shape).to(rows) < share)
    left = rows.masked_fill(hidden, torch.nan)

    def error(ridge: float) -> float:
        mean, covariance = normal_distribution(left, ridge)
        chunks = left.split(max(1, ENTRIES // rows.shape[1] ** 2))
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
