"""Portraits a little different from those there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor


@final
@dataclass(frozen=True)
class Variations:
    """Mirrors, turns, stretches, moves and relights images at random.

    Amounts are the most that an image is changed by, either way; torch's generator draws them.

    Args:
        mirrored: probability of left and right changing places.
        turn: angle in radians.
        stretch: relative change of size.
        shift: of half the height or width.
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
