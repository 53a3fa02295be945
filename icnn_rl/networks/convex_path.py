"""The weights of a convex path: non-negative on z, free on y, and how they are initialised."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from icnn_rl.networks.activations import activation
from icnn_rl.networks.checks import Shape, require_one_of, require_widths

NonNegativity = Literal["projection", "softplus"]


@dataclass(frozen=True)
class NonNegativeInit:
    """Moments of non-negative weights, and the bias, that keep a signal at unit variance.

    With correlation ρ = 1/2 between features, fan-in n and leaky slope α:

        m = √(1 - ρ²) + ρ arccos(-ρ),      C = n (π - n + (n - 1) m) / 2π,
        E[w]² = ρ / C,      Var[w] = 2 (1 - ρ) / ((1 + α²) n),      b = -n √(E[w]² / 2π).

    Source: Hoedt & Klambauer, "Principled Weight Initialisation for Input-Convex Neural
    Networks", NeurIPS 2023, section 3.
    """

    mean: float
    variance: float
    bias: float

    @classmethod
    def for_fan_in(cls, fan_in: int, leak: float = 0.0) -> NonNegativeInit:
        """Moments for a layer with ``fan_in`` inputs after an activation of slope ``leak``."""
        n, rho = fan_in, 0.5
        m = math.sqrt(1 - rho**2) + rho * math.acos(-rho)
        mean_squared = rho * 2 * math.pi / (n * (math.pi - n + (n - 1) * m))
        variance = 2 / (1 + leak**2) * (1 - rho) / n
        bias = -n * math.sqrt(mean_squared / (2 * math.pi))
        return cls(math.sqrt(mean_squared), variance, bias)

    @torch.no_grad()
    def fill_(self, weight: Tensor) -> Tensor:
        """Fill ``weight`` in place from the log-normal distribution with these moments."""
        log_variance = math.log1p(self.variance / self.mean**2)
        log_mean = math.log(self.mean) - log_variance / 2
        return weight.log_normal_(log_mean, math.sqrt(log_variance))


@torch.no_grad()
def uniform_(t: Tensor, fan_in: int) -> Tensor:
    """Fill ``t`` in place uniformly within ±1/√fan_in."""
    bound = 1 / math.sqrt(fan_in)
    return t.uniform_(-bound, bound)


class NonNegativeWeights(nn.Module):
    """The weights Wₖᶻ ≥ 0, k = 1 … K, of a convex path, and its activation.

    Args:
        shapes: shapes of the weights.
        fan_ins: how many inputs a unit of each layer has.
        activation_name: the name of σ, see ``activation``.
        nonnegativity: ``"projection"`` clamps Wᶻ in ``project_`` after a step of the optimiser;
            ``"softplus"`` stores its inverse softplus, so that no step can leave the cone.
    """

    def __init__(
        self,
        shapes: Sequence[Shape],
        fan_ins: Sequence[int],
        activation_name: str,
        nonnegativity: NonNegativity,
    ) -> None:
        super().__init__()
        require_one_of("nonnegativity", nonnegativity, get_args(NonNegativity))
        self.nonnegativity: str = nonnegativity
        self.activation = activation(activation_name)
        self._init = [NonNegativeInit.for_fan_in(n, self.activation.leak) for n in fan_ins]
        self.raw_z = nn.ParameterList(torch.empty(shape) for shape in shapes)
        self.register_load_state_dict_pre_hook(_require_cone)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw Wᶻ as Hoedt & Klambauer do."""
        for w, init in zip(self.raw_z, self._init, strict=True):
            init.fill_(w)
            if self.nonnegativity == "softplus":
                w.add_(torch.log(-torch.expm1(-w)))

    def bias_init(self, k: int) -> float:
        """The bias that centres layer k, given that its weights on z are positive."""
        return self._init[k - 1].bias if k > 0 else 0.0

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
    """Refuse to load negative weights, such as those that ``"softplus"`` stores."""
    assert isinstance(module, NonNegativeWeights)
    weights = (state.get(f"{prefix}raw_z.{k}") for k in range(len(module.raw_z)))
    smallest = min((float(w.min()) for w in weights if w is not None and w.numel()), default=0.0)
    if module.nonnegativity == "projection" and smallest < 0:
        raise ValueError(
            f"raw_z: expected weights >= 0 for nonnegativity 'projection', got {smallest}; "
            "'softplus' has others"
        )


class ConvexPath(NonNegativeWeights):
    """Weights Wₖᶻ ≥ 0 and Wₖʸ of the layers zₖ₊₁ = σ(Wₖᶻ zₖ + Wₖʸ y + bₖ), k = 0 … K.

    ``weight_z()`` gives Wₖᶻ, transposed, k = 1 … K, each ``(E, nₖ, nₖ₊₁)``, for the hidden widths
    n₁ … n_K and an output of width one.
    """

    def __init__(
        self,
        dim: int,
        widths: Sequence[int],
        activation_name: str,
        members: int,
        nonnegativity: NonNegativity,
    ) -> None:
        require_widths("convex", widths)
        if not widths:
            raise ValueError("convex: expected at least one hidden layer, got ()")
        ends = (*widths, 1)
        shapes = [(members, *sizes) for sizes in pairwise(ends)]
        super().__init__(shapes, widths, activation_name, nonnegativity)
        self.dim, self.widths = dim, tuple(widths)
        self.raw_y = nn.ParameterList(torch.empty(members, dim, width) for width in ends)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw Wᶻ as Hoedt & Klambauer do and Wʸ uniformly within ±1/√n."""
        super().reset_parameters()
        for w in self.raw_y:
            uniform_(w, self.dim)

    def weight_y(self) -> tuple[Tensor, ...]:
        """Wₖʸ, transposed, k = 0 … K, each ``(E, n, nₖ₊₁)``."""
        return tuple(self.raw_y)
