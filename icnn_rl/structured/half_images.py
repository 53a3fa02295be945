"""Halves of images, random variations of images, and a kernel regression from half to half."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor


def halves(images: Tensor) -> tuple[Tensor, Tensor]:
    """The given right half, mirrored so that it fits the missing left half, and the left half.

    Args:
        images: ``(N, height, width)``.

    Returns:
        x of shape ``(N, 1, height, width / 2)`` and y, flat, ``(N, height * width / 2)``.
    """
    middle = images.shape[2] // 2
    return images[:, None, :, middle:].flip(-1), images[:, :, :middle].flatten(1)


def joined(x: Tensor, y: Tensor) -> Tensor:
    """The images whose ``halves`` are x and y."""
    given = x.squeeze(1)
    return torch.cat([y.view_as(given), given.flip(-1)], -1)


def require_images(images: Tensor, size: torch.Size | None = None) -> None:
    """Refuse images that cannot be learnt from or completed.

    Args:
        images: the images.
        size: height and width in training, for images to complete: their left halves are not read.

    Raises:
        ValueError: their type, number, shape or entries are wrong.
    """
    if not images.is_floating_point():
        raise ValueError(f"images: expected floating point numbers, got {images.dtype}")
    if images.dim() != 3 or not len(images) or images.shape[1] % 8 or images.shape[2] % 16:
        raise ValueError(
            "images: expected shape (N, height, width), N >= 1, the height divisible by 8, the "
            f"width by 16, got {tuple(images.shape)}"
        )
    if size is not None and images.shape[1:] != size:
        raise ValueError(
            f"images: expected height and width {tuple(size)} as in training, "
            f"got {tuple(images.shape[1:])}"
        )
    read = images if size is None else halves(images)[0]
    if not bool(((read >= 0) & (read <= 1)).all()):
        least, most = read.aminmax()
        raise ValueError(f"images: expected entries in [0, 1], got {least:g} to {most:g}")


@final
@dataclass(frozen=True)
class Variations:
    """Mirrors, turns, stretches, moves and relights images at random.

    An image changes by at most the amounts given, in either direction; torch's generator draws
    them.

    Args:
        mirrored: probability that left and right change places.
        turn: angle in radians.
        stretch: relative change of size.
        shift: relative to half the height or width.
        contrast: relative change of the grey values.
        brightness: added to the grey values.
    """

    mirrored: float = 0.2
    turn: float = 0.05
    stretch: float = 0.05
    shift: float = 0.05
    contrast: float = 0.05
    brightness: float = 0.03

    def __call__(self, images: Tensor) -> Tensor:
        """A variant of each image, ``(B, height, width)`` with entries in [0, 1]."""
        angle, stretch, slant, right, down, contrast, brightness = (
            images.new_empty(7, len(images)).uniform_(-1, 1).unbind()
        )
        angle, tall = self.turn * angle, 1 + self.stretch * stretch
        wide = tall * (1 + self.stretch / 2 * slant)
        wide = torch.where(torch.rand_like(wide) < self.mirrored, -wide, wide)
        rows = (
            torch.stack([wide * angle.cos(), -tall * angle.sin(), self.shift * right], -1),
            torch.stack([wide * angle.sin(), tall * angle.cos(), self.shift * down], -1),
        )
        grid = F.affine_grid(
            torch.stack(rows, 1), [len(images), 1, *images.shape[1:]], align_corners=False
        )
        moved = F.grid_sample(
            images.unsqueeze(1), grid, padding_mode="border", align_corners=False
        ).squeeze(1)
        factor, offset = 1 + self.contrast * contrast, self.brightness * brightness
        return (moved * factor[:, None, None] + offset[:, None, None]).clamp(0, 1)


@final
class LocalKernelRegression:
    """Kernel ridge regression from image to image, in bands of rows.

        k(x, x') = exp(-d(x, x') / 20),      d² = n Σᵢ wᵢ (xᵢ - x'ᵢ)² / Σᵢ wᵢ,
        wᵢ = exp(-(rowᵢ - centre of the band)² / (2 · 8²)) + 0.03

    Args:
        bands: number of bands, a divisor of the height.
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
        self.coefficients = []
        for band, targets in enumerate((y - self.mean).chunk(self.bands, 1)):
            kernel = self._kernel(x, band)
            kernel.diagonal().add_(self.ridge * len(x))
            factor = torch.linalg.cholesky(kernel)
            self.coefficients.append(torch.cholesky_solve(targets, factor))
        return self

    def predict(self, x: Tensor) -> Tensor:
        """The answers, flat, in [0, 1], ``(B, height * width)``."""
        bands = [self._kernel(x, b) @ c for b, c in enumerate(self.coefficients)]
        return (torch.cat(bands, 1) + self.mean).clamp(0, 1)

    def _kernel(self, x: Tensor, band: int) -> Tensor:
        """k between new images and those of the fit, ``(B, N)``."""
        height = x.shape[2]
        rows = torch.arange(height, dtype=x.dtype, device=x.device)
        centre = (band + 0.5) * height / self.bands
        weight = torch.exp(-((rows - centre) ** 2) / (2 * 8.0**2)) + 0.03
        scale = (weight * height / weight.sum()).sqrt()[:, None]
        left, right = ((t * scale).flatten(1) for t in (x, self.x))
        return torch.exp(-torch.cdist(left, right) / 20.0)


def fit_kernel_regression(images: Tensor, vary: Variations) -> LocalKernelRegression:
    """A kernel regression from half to half, learnt from twelve variants of each image."""
    return LocalKernelRegression().fit(*halves(torch.cat([vary(images) for _ in range(12)])))
