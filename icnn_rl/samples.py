"""Some samples of a batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from icnn_rl.functions import ConvexFunction


@dataclass(frozen=True)
class Samples:
    """The samples of a batch that are left to work on.

    They are cut out of a batch with one axis; of any other the whole batch is taken along.

    Attributes:
        mask: which ones, of the shape of the batch.
    """

    mask: Tensor

    @property
    def apart(self) -> bool:
        """Whether they are cut out."""
        return self.mask.dim() == 1

    def take(self, t: Tensor) -> Tensor:
        """Their rows of a tensor of shape ``(*batch, ...)``."""
        return t[self.mask] if self.apart else t

    def function(self, f: ConvexFunction) -> ConvexFunction:
        """Their functions."""
        return f.take(self.mask.nonzero().squeeze(-1)) if self.apart else f

    def put(self, new: Tensor, old: Tensor) -> Tensor:
        """``old`` with their rows replaced, for ``new`` of the shape that ``take`` gives."""
        if self.apart:
            changed = old.clone()
            changed[self.mask] = new
            return changed
        mask = self.mask.reshape(self.mask.shape + (1,) * (old.dim() - self.mask.dim()))
        return torch.where(mask, new, old)
