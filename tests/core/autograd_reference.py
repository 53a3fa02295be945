"""Derivatives by automatic differentiation, to compare closed forms with."""

from __future__ import annotations

import torch
from torch import Tensor

from icnn_rl import ConvexFunction


def gradient(f: ConvexFunction, y: Tensor) -> Tensor:
    """∇f(y) of each function in the batch."""
    y = y.detach().requires_grad_()
    return torch.autograd.grad(f.value(y).sum(), y)[0]


def hessian(f: ConvexFunction, y: Tensor) -> Tensor:
    """∇²f(y) of each function in the batch."""
    y = y.detach().requires_grad_()
    slope = torch.autograd.grad(f.value(y).sum(), y, create_graph=True)[0]
    if not slope.requires_grad:  # linear
        return torch.zeros(*slope.shape, slope.shape[-1], dtype=y.dtype)
    rows = [
        torch.autograd.grad(slope[..., i].sum(), y, retain_graph=True)[0]
        for i in range(y.shape[-1])
    ]
    return torch.stack(rows, -2)
