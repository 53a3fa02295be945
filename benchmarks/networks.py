"""The networks whose inference is measured: fresh ones, and ones fitted to kinks."""

from __future__ import annotations

import torch
from torch import Tensor

from icnn_rl import PICNN, ConvexFunction

X_DIM = 17
STEPS = 300


def network(
    widths: tuple[int, ...], n: int, activation: str = "relu", *, trained: bool = False
) -> PICNN:
    """A network of n convex variables; the same seed gives the same one."""
    torch.manual_seed(0)
    net = PICNN(X_DIM, n, context=widths, convex=widths, activation=activation)
    if trained:
        fit(net, n)
    return net


def conditioned(
    batch: int,
    widths: tuple[int, ...],
    n: int,
    *,
    trained: bool = False,
    dtype: torch.dtype = torch.float32,
) -> ConvexFunction:
    """A batch of functions of n variables: one ReLU network, x ~ N(0, I)."""
    net = network(widths, n, trained=trained).to(dtype)
    with torch.no_grad():
        return net.condition(torch.randn(batch, X_DIM).to(dtype))


def fit(net: PICNN, n: int) -> None:
    """Regression on a function that is convex in y and has n + 1 kinks which move with x."""
    center, mixing = torch.randn(X_DIM, n) / X_DIM**0.5, torch.randn(n, n) / n**0.5

    def target(x: Tensor, y: Tensor) -> Tensor:
        offset = y - torch.tanh(x @ center)
        return (offset @ mixing).abs().sum(-1) / n**0.5 + offset.amax(-1).relu()

    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(STEPS):
        x, y = torch.randn(256, X_DIM), 2 * torch.rand(256, n) - 1
        loss = (net(x, y) - target(x, y)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        net.project_()
