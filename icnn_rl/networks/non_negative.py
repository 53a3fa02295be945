"""Weights that are kept non-negative."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from icnn_rl.networks.initialization import NonNegativeInit

NonNegativity = Literal["projection", "softplus"]


class NonNegativeWeights(nn.Module):
    """The weights Wᶻ ≥ 0 of a convex path.

    Args:
        shapes: shapes of the weights.
        nonnegativity: ``projection`` clamps Wᶻ in ``project_`` after a step of the optimiser;
            ``softplus`` stores its inverse softplus, so that no step can leave the cone.

    Raises:
        ValueError: the name is unknown.
    """

    def __init__(self, shapes: Iterable[tuple[int, ...]], nonnegativity: NonNegativity) -> None:
        super().__init__()
        if nonnegativity not in ("projection", "softplus"):
            raise ValueError(
                f"nonnegativity: expected 'projection' or 'softplus', got {nonnegativity!r}"
            )
        self.nonnegativity: str = nonnegativity
        self.raw_z = nn.ParameterList(torch.empty(shape) for shape in shapes)
        self.register_load_state_dict_pre_hook(_require_cone)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def draw_(self, moments: Iterable[NonNegativeInit]) -> None:
        """Draw each weight from its distribution."""
        for w, init in zip(self.raw_z, moments, strict=True):
            init.fill_(w)
            if self.nonnegativity == "softplus":
                w.add_(torch.log(-torch.expm1(-w)))

    def weight_z(self) -> tuple[Tensor, ...]:
        """The weights, each ≥ 0 after ``project_``."""
        if self.nonnegativity == "softplus":
            return tuple(F.softplus(w) for w in self.raw_z)
        return tuple(self.raw_z)

    @torch.no_grad()
    def project_(self) -> None:
        """P₊: put the weights back into the cone; nothing to do under ``softplus``."""
        if self.nonnegativity == "projection":
            torch._foreach_clamp_min_(list(self.raw_z), 0.0)


def _require_cone(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Refuse to load weights that would not be convex, such as those of the other kind."""
    assert isinstance(module, NonNegativeWeights)
    weights = (state.get(f"{prefix}raw_z.{k}") for k in range(len(module.raw_z)))
    smallest = min((float(w.min()) for w in weights if w is not None and w.numel()), default=0.0)
    if module.nonnegativity == "projection" and smallest < 0:
        raise ValueError(
            f"raw_z: expected weights >= 0 for nonnegativity 'projection', got {smallest}; "
            "'softplus' has others"
        )
