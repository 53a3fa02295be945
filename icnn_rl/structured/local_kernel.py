"""Kernel ridge regression from image to image, each band of rows by what lies near it."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

REACH = 8.0  # s, in rows
FLOOR = 0.03  # weight of rows far away
LENGTH = 20.0  # ℓ


@final
class LocalKernelRegression:
    """Ridge regression with the exponential kernel of a distance that fades with height.

        k(x, x') = exp(-d(x, x') / ℓ),      d² = n Σᵢ wᵢ (xᵢ - x'ᵢ)² / Σᵢ wᵢ,
        wᵢ = exp(-(rowᵢ - centre)² / 2s²) + floor,      for each band its own centre

    Args:
        bands: number of bands of rows, which the height is a multiple of.
        ridge: added to the diagonal of the kernel matrix, for each sample.
    """

    def __init__(self, bands: int = 8, ridge: float = 5e-5) -> None:
        self.bands = bands
        self.ridge = ridge

    def fit(self, x: Tensor, y: Tensor) -> LocalKernelRegression:
        """Learn from images x, ``(N, 1, height, width)``, and images y of their size, flat.

        Raises:
            ValueError: the height is no multiple of the number of bands.
        """
        height = x.shape[2]
        if height % self.bands:
            raise ValueError(f"bands: expected a divisor of the height {height}, got {self.bands}")
        self.x = x
        self.mean = y.mean(0)
        targets = (y - self.mean).view(len(y), self.bands, -1)
        factors = []
        for band in range(self.bands):
            kernel = self._kernel(x, band)
            kernel.diagonal().add_(self.ridge * len(x))
            factor = torch.linalg.cholesky(kernel)
            factors.append(torch.cholesky_solve(targets[:, band], factor))
        self.coefficients = factors
        return self

    def predict(self, x: Tensor) -> Tensor:
        """The answers, flat, in [0, 1], ``(B, height * width)``."""
        bands = [self._kernel(x, b) @ c for b, c in enumerate(self.coefficients)]
        return (torch.cat(bands, 1) + self.mean).clamp(0, 1)

    def _kernel(self, x: Tensor, band: int) -> Tensor:
        """k between new images and those learnt from, ``(B, N)``."""
        height = x.shape[2]
        rows = torch.arange(height, dtype=x.dtype, device=x.device)
        centre = (band + 0.5) * height / self.bands
        weight = torch.exp(-((rows - centre) ** 2) / (2 * REACH**2)) + FLOOR
        scale = (weight * height / weight.sum()).sqrt()[:, None]
        left, right = ((t * scale).flatten(1) for t in (x, self.x))
        return torch.exp(-torch.cdist(left, right) / LENGTH)
