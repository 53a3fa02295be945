"""Normalisation of layers on x: of ensembles, each member on its own, and of features."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from icnn_rl.networks.checks import Shape, require_one_of

Norm = Literal["none", "layer", "batch"]
FeatureNorm = Literal["none", "batch"]
MIN_MOMENTUM = 0.01  # share of a batch in the running averages
EPSILON = 1e-3  # added to variances over a batch
WARM_UP_BATCHES = 2000  # before the running averages are used in training


def normalization(norm: Norm, members: int, width: int) -> nn.Module:
    """The module of a name, for layers of shape ``(E, B, width)``."""
    kinds: dict[str, Callable[[int, int], nn.Module]] = {
        "none": nn.Identity,
        "layer": LayerNorm,
        "batch": BatchRenorm,
    }
    require_one_of("norm", norm, kinds)
    return kinds[norm](members, width)


class Normalization(nn.Module):
    """A normalisation with scales γ and shifts δ, both of shape ``(E, 1, width)``."""

    def __init__(self, members: int, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(members, 1, width))
        self.shift = nn.Parameter(torch.zeros(members, 1, width))

    def reset_parameters(self) -> None:
        """γ = 1 and δ = 0."""
        nn.init.ones_(self.scale)
        nn.init.zeros_(self.shift)


class LayerNorm(Normalization):
    """Layer normalisation.

        γ ∘ (x - mean(x)) / √(var(x) + ε) + δ      over the width, for each sample

    Source: Ba, Kiros & Hinton, "Layer Normalization", 2016.
    """

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.shift, F.layer_norm(x, x.shape[-1:]), self.scale)


class BatchRenorm(Normalization):
    """Batch renormalisation.

        γ ∘ (r (x - m) / s + d) + δ,      r = clip(s / s', 1/3, 3),  d = clip((m - m') / s', -5, 5)

    Here m and s are the mean and deviation over the samples, m' and s' their running averages, and
    r and d are constants in the gradient. So the result is (x - m') / s', as in evaluation, unless
    a batch is far off. For the first 2000 batches r = 1 and d = 0.

    Source: Ioffe, "Batch Renormalization", NeurIPS 2017.
    """

    mean: Tensor
    variance: Tensor
    batches: Tensor

    def __init__(self, members: int, width: int) -> None:
        super().__init__(members, width)
        self.register_buffer("mean", torch.zeros(members, 1, width))
        self.register_buffer("variance", torch.ones(members, 1, width))
        self.register_buffer("batches", torch.zeros(members, 1, 1, dtype=torch.long))

    def reset_parameters(self) -> None:
        """γ = 1 and δ = 0; forget the running averages."""
        super().reset_parameters()
        self.mean.zero_()
        self.variance.fill_(1.0)
        self.batches.zero_()

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            stretch, offset = self._of_batch(x)
        else:
            stretch = (self.variance + EPSILON).rsqrt()
            offset = -self.mean * stretch
        # One pass over the layer: x (γ stretch) + (γ offset + δ).
        term = torch.addcmul(self.shift, self.scale, offset)
        return torch.addcmul(term, x, self.scale * stretch)

    def _of_batch(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """r / s and d - m r / s; the running averages move on."""
        variance, mean = torch.var_mean(x, 1, keepdim=True, correction=0)
        deviation = (variance + EPSILON).sqrt()
        with torch.no_grad():
            known, trusted = (self.variance + EPSILON).sqrt(), self.batches >= WARM_UP_BATCHES
            r = (deviation / known).clamp(1 / 3, 3).where(trusted, 1.0)
            d = ((mean - self.mean) / known).clamp(-5, 5).where(trusted, 0.0)
            self.batches += 1
            share = (1.0 / self.batches).clamp(min=MIN_MOMENTUM).to(mean)  # first, the mean of all
            self.mean.lerp_(mean, share)
            self.variance.lerp_(variance, share)
        stretch = r / deviation
        return stretch, d - mean * stretch


def batch_norms(norm: FeatureNorm, shapes: Iterable[Shape], affine: bool) -> nn.ModuleList:
    """Batch normalisations of vectors or images, one for each shape; empty for ``"none"``.

    Source: Ioffe & Szegedy, "Batch Normalization", ICML 2015.
    """
    require_one_of("norm", norm, get_args(FeatureNorm))
    kinds = {1: nn.BatchNorm1d, 3: nn.BatchNorm2d}
    wanted = shapes if norm == "batch" else ()
    return nn.ModuleList(kinds[len(s)](s[0], affine=affine) for s in wanted)


def reset_norms(modules: Iterable[nn.Module]) -> None:
    """Reset the parameters and running moments of those modules that have some."""
    for module in modules:
        if isinstance(module, Normalization | nn.BatchNorm1d | nn.BatchNorm2d):
            module.reset_parameters()


def running_scale_and_shift(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """(c, d) such that a batch normalisation without γ and δ gives c x - d in evaluation."""
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var + norm.eps).rsqrt()
    return scale, norm.running_mean * scale
