"""The normal distribution that rows with missing entries come from, most likely."""

from __future__ import annotations

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
        for v, k in zip(rows.split(chunk), known.to(rows).split(chunk), strict=True):
            block = covariance * k.unsqueeze(-1) * k.unsqueeze(-2) + torch.diag_embed(1 - k)
            gain = torch.cholesky_solve(covariance * k.unsqueeze(-1), torch.linalg.cholesky(block))
            deviation = torch.where(k > 0, v - mean, 0.0)
            filled.append((deviation.unsqueeze(-2) @ gain).squeeze(-2))
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
