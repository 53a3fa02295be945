"""Newton's method in tensors alone, checked on the CPU, where it can be called as well."""

from __future__ import annotations

import pytest
import torch
from problems import normal
from torch import Tensor

from icnn_rl import PICNN, Box, ConvexFunction, linear, minimize, negative_entropy, quadratic
from icnn_rl.solvers import newton_on_device
from icnn_rl.solvers.newton_on_device import eliminate, model_step, tangent_minimum

BATCH = 16
UNIT = Box(-1.0, 1.0)


def network(
    activation: str, convex: tuple[int, ...], n: int, dtype: torch.dtype, scale: float = 1.5
) -> ConvexFunction:
    """The mean of two networks, steep enough that some minima lie in corners."""
    torch.manual_seed(n)
    net = PICNN(5, n, (32,), convex, activation, ensemble=2).double().requires_grad_(False)
    for p in net.parameters():
        p.mul_(scale)
    return net.to(dtype).condition(normal(n, BATCH, 5).to(dtype)).mean(0)


@pytest.mark.parametrize(
    ("activation", "convex", "n"),
    [
        ("softplus", (64,), 1),
        ("softplus", (64,), 6),
        ("softplus", (64, 64), 17),
        ("squareplus", (64,), 3),
        ("squareplus", (64,), 17),
        ("squareplus", (64, 64), 6),
    ],
    ids=str,
)
def test_networks(activation: str, convex: tuple[int, ...], n: int) -> None:
    exact = network(activation, convex, n, torch.float64)
    optimum = minimize(exact, UNIT, 1e-9, "bundle", max_evaluations=300)
    assert (optimum.gap <= 1e-8).all()
    size = optimum.value.abs().clamp(min=1)
    for dtype in (torch.float64, torch.float32):
        f = network(activation, convex, n, dtype)
        solution = minimize(f, UNIT, 1e-4, "newton_on_device")
        peer = minimize(f, UNIT, 1e-4, "newton")
        assert solution.y.dtype == solution.lower_bound.dtype == dtype
        assert (solution.y.abs() <= 1).all()
        assert solution.converged.sum() >= peer.converged.sum()
        assert (solution.lower_bound <= optimum.value).all()
        assert (exact.value(solution.y.double()) >= optimum.lower_bound).all()
        assert (solution.value - optimum.value <= solution.gap + 1e-6 * size).all()
        few = minimize(f, UNIT, 1e-2, "newton_on_device", max_evaluations=5)
        assert (few.gap <= 1e-2 * size).all()
        assert (few.lower_bound <= optimum.value).all()
        assert (few.evaluations == 5).all()


def test_minima_in_corners_and_inside() -> None:
    f = network("squareplus", (64,), 3, torch.float64)
    y = minimize(f, UNIT, 1e-6, "newton_on_device").y
    assert (y.abs() == 1).all(-1).any()
    assert (y.abs() < 1).any(-1).any()


TERMS = {
    "linear": lambda: linear(3 * normal(1, BATCH, 3)),
    "quadratic": lambda: quadratic(0.7, normal(1, BATCH, 3)),
    "quadratics": lambda: quadratic(normal(2, BATCH).clamp(min=0), normal(1, BATCH, 3)),
    "entropy": lambda: negative_entropy(0.5),
}
BOXES = {
    "unit": UNIT,
    "of each sample": Box(-normal(3, BATCH, 3).sigmoid(), normal(4, BATCH, 3).sigmoid()),
    "uneven": Box(torch.tensor([-1e-3, 2.0, -1e3]), torch.tensor([1e-3, 2.0, 1e3])),
}


CASES = [(t, w) for t in TERMS for w in BOXES]
CASES.remove(("entropy", "uneven"))  # the entropy is one of points in [-1, 1]


@pytest.mark.slow
@pytest.mark.parametrize(("term", "where"), CASES)
def test_terms_and_boxes(term: str, where: str) -> None:
    f = network("squareplus", (64,), 3, torch.float64) + TERMS[term]()
    over = BOXES[where]
    solution = minimize(f, over, 1e-6, "newton_on_device")
    optimum = minimize(f, over, 1e-6, "newton")
    scale = 1e-6 * optimum.value.abs().clamp(min=1)
    assert optimum.converged.all()
    assert solution.converged.all()
    assert (solution.lower_bound <= optimum.value + scale).all()
    assert (optimum.lower_bound <= solution.value + scale).all()
    assert over.contains(solution.y, 0.0).all()


def test_leading_axes_and_starts() -> None:
    f = network("softplus", (16,), 3, torch.float64).f  # both members, each with its own minimum
    solution = minimize(f, UNIT, 1e-6, "newton_on_device", start=torch.full((3,), 9.0).double())
    peer = minimize(f, UNIT, 1e-6, "newton")
    assert solution.value.shape == (2, BATCH)
    assert solution.converged.all()
    torch.testing.assert_close(solution.value, peer.value, rtol=0, atol=1e-6)


def test_a_sample_that_is_not_finite_spoils_no_other_in_a_graph(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(newton_on_device, "capturing", lambda _: True)
    f = network("softplus", (16,), 3, torch.float64)
    c = torch.zeros(BATCH, 3).double()
    c[2, 1] = torch.nan
    spoilt, clean = (minimize(g, UNIT, solver="newton_on_device") for g in (f + linear(c), f))
    others = torch.arange(BATCH) != 2
    assert not spoilt.gap[2].isfinite()
    assert not spoilt.converged[2]
    assert (spoilt.y[2] == 0).all()
    torch.testing.assert_close(spoilt.y[others], clean.y[others])


def test_what_it_does_not_solve() -> None:
    f = network("softplus", (16,), 3, torch.float64)
    with pytest.raises(TypeError, match="needs a Box"):
        minimize(f, UNIT & Box(torch.zeros(3), torch.ones(3)), solver="newton_on_device")
    with pytest.raises(TypeError, match="needs a smooth function"):
        minimize(network("relu", (8,), 3, torch.float64), UNIT, solver="newton_on_device")


@pytest.mark.parametrize("n", [1, 4, 17])
def test_elimination(n: int) -> None:
    root = normal(n, BATCH, n, n)
    A, x = root @ root.mT + 0.1 * torch.eye(n).double(), normal(n + 1, BATCH, n)
    torch.testing.assert_close(eliminate(A, (A @ x.unsqueeze(-1)).squeeze(-1)), x)


@pytest.mark.parametrize("n", [1, 3, 6])
def test_model_step_falls_and_keeps_to_the_box(n: int) -> None:
    root, g = normal(n, 200, n, n), 3 * normal(n + 1, 200, n)
    H, low, high = root @ root.mT, -normal(n + 2, 200, n).exp(), normal(n + 3, 200, n).exp()
    d, decrease = model_step(H, g, low, high, torch.finfo(torch.float64).eps)
    change = (g * d).sum(-1) + (d * (H @ d.unsqueeze(-1)).squeeze(-1)).sum(-1) / 2
    torch.testing.assert_close(decrease, -change)
    assert (decrease > 0).all()
    assert ((low <= d) & (d <= high)).all()
    model = linear(g) + quadratic(1.0, torch.zeros(n).double()).affine(root.mT)
    least = minimize(model, Box(low, high), 1e-6, "newton", max_evaluations=50).value
    assert (decrease <= -least + 1e-9).all()
    assert (decrease >= -0.6 * least).double().mean() > 0.8


@pytest.mark.parametrize(
    "gamma", [0.0, 0.5, normal(9, BATCH).clamp(min=0)], ids=["none", "one", "each"]
)
def test_tangents_are_minimised_over_the_box(gamma: Tensor | float) -> None:
    g, low, high = normal(1, BATCH, 3), -normal(2, BATCH, 3).exp(), normal(3, BATCH, 3).exp()
    weight = torch.as_tensor(gamma).double()[..., None]
    points = low + (high - low) * torch.linspace(0, 1, 1001).double()[:, None, None]
    least = ((g + weight / 2 * points) * points).amin(0).sum(-1)
    exact = tangent_minimum(g, low, high, gamma)
    assert (exact <= least + 1e-12).all()
    assert (least - exact <= 1e-4).all()


@pytest.mark.parametrize("missing", ["triton", "compiler", "headers"])
def test_without_what_a_kernel_takes_there_is_none(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = {"triton", "compiler", "headers"}
    for what in (there, there - {missing}):
        known = {
            "find_spec": "spec" if "triton" in what else None,
            "shutil.which": "/usr/bin/cc" if "compiler" in what else None,
            "Path.is_file": "headers" in what,
        }
        for name, answer in known.items():
            monkeypatch.setattr(
                f"icnn_rl.solvers.newton_on_device.{name}", lambda *_, answer=answer: answer
            )
        newton_on_device._can_compile.cache_clear()
        assert newton_on_device._can_compile() == (what == there)
    newton_on_device._can_compile.cache_clear()
