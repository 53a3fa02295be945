"""Initialisation of layers whose weights are non-negative."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

CORRELATION = 0.5


@dataclass(frozen=True)
class NonNegativeInit:
    """Moments of the weights, and the bias, that propagate a signal of unit variance.

    With correlation ρ between features, fan-in n and leaky slope α:

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
        n, rho = fan_in, CORRELATION
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
