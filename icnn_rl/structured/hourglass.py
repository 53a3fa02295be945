"""An ordinary convolutional network from one image to another of the same size."""

from __future__ import annotations

from itertools import pairwise
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from icnn_rl.networks.layers import Shape

LEVELS = 3  # each of half the height and width of the one before
CHANNELS = 8  # after the first convolution; doubled by each further one
CODE = 32  # length of the code
DROPOUT = 0.3  # share of the code, and of what it is made of, left out while training


@final
class Hourglass(nn.Module):
    """Three convolutions down, a short code, three convolutions up that also see the way down.

    The code is all that the whole of the image can say to the whole of the answer: a few dozen
    numbers, which keeps a network of few pictures from learning them by heart.

    Args:
        shape: of the image, ``(1, height, width)``, both divisible by 8.

    Raises:
        ValueError: the image cannot be halved three times.

    Source: Ronneberger, Fischer & Brox, "U-Net: Convolutional networks for biomedical image
    segmentation", MICCAI 2015.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        _, height, width = shape
        if height % 2**LEVELS or width % 2**LEVELS:
            raise ValueError(
                f"shape: expected height and width divisible by {2**LEVELS}, got {shape}"
            )
        widths = [1, *(CHANNELS * 2**k for k in range(LEVELS))]
        self.down = nn.ModuleList(
            nn.Conv2d(below, above, 5, stride=2, padding=2) for below, above in pairwise(widths)
        )
        coarse = (widths[-1], height // 2**LEVELS, width // 2**LEVELS)
        size = coarse[0] * coarse[1] * coarse[2]
        self.code = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(DROPOUT),
            nn.Linear(size, CODE),
            nn.ReLU(),
            nn.Dropout(DROPOUT),
            nn.Linear(CODE, size),
            nn.ReLU(),
            nn.Unflatten(1, coarse),
        )
        reads = [widths[-1], *widths[:1:-1]]
        self.up = nn.ModuleList(
            nn.Conv2d(above + level, level, 3, padding=1)
            for above, level in zip(reads, widths[:0:-1], strict=True)
        )
        self.output = nn.Conv2d(CHANNELS + 1, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """The answer, flat, ``(B, height * width)``, for x of shape ``(B, *shape)``."""
        centred = x - 0.5
        z, levels = centred, []
        for convolution in self.down:
            z = F.relu(convolution(z))
            levels.append(z)
        z = self.code(z)
        for convolution, level in zip(self.up, reversed(levels), strict=True):
            z = F.relu(convolution(torch.cat([z, level], 1)))
            z = F.interpolate(z, scale_factor=2.0, mode="bilinear")
        answer: Tensor = self.output(torch.cat([z, centred], 1)).flatten(1)
        return 0.5 + answer

    def project_(self) -> None:
        """Nothing has a sign to keep."""
