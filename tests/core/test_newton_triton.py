"""Newton's method as one launch of a GPU; where there is none Triton interprets the kernel."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from problems import SMOOTH, normal
from torch import Tensor

from icnn_rl import FICNN, PICNN, Box, ConvexFunction, linear, minimize, negative_entropy, quadratic
from icnn_rl.functions import Mean
from icnn_rl.networks import ConditionedNetwork
from icnn_rl.solvers import newton_on_device
from icnn_rl.solvers.problem import Problem

pytest.importorskip("triton", reason="Triton is made for Linux alone")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BATCH = 4
UNIT = Box(-1.0, 1.0)
SOME = (
    torch.tensor([-1e-3, 2.0, -1e3], device=DEVICE),
    torch.tensor([1e-3, 2.0, 1e3], device=DEVICE),
)
BOXES = {
    "unit": UNIT,
    "of each sample": Box(
        -normal(3, BATCH, 3).sigmoid().to(DEVICE), normal(4, BATCH, 3).sigmoid().to(DEVICE)
    ),
    "uneven": Box(*SOME),
}


def network(
    n: int = 3,
    activation: str = "squareplus",
    dtype: torch.dtype = torch.float64,
    convex: tuple[int, ...] = (20,),
    members: int | None = 2,
) -> ConvexFunction:
    """Networks steep enough that some minima lie in corners; the mean of two by default."""
    torch.manual_seed(n)
    net = PICNN(5, n, (32,), convex, activation, ensemble=members).double().requires_grad_(False)
    for p in net.parameters():
        p.mul_(1.5)
    f = net.to(DEVICE, dtype).condition(normal(n, BATCH, 5).to(DEVICE, dtype))
    return f if members is None else f.mean(0)


def problem(
    f: ConvexFunction, over: Box = UNIT, tol: float = 0.0, max_evaluations: int = 6
) -> Problem:
    assert f.like is not None
    center = over.interior_point(f.like.new_zeros(*f.batch_shape, f.dim))[0]
    return Problem(f, over, tol, max_evaluations, center, center)


# The interpreter's time grows with n and with the number of evaluations.
CASES = [*((activation, 1, (1, 4)) for activation in SMOOTH), ("softplus", 6, (3,))]


@pytest.mark.slow
@pytest.mark.parametrize(("activation", "n", "counts"), [*CASES, ("squareplus", 17, (2,))])
def test_iterations_are_those_in_tensors(activation: str, n: int, counts: tuple[int, ...]) -> None:
    f = network(n, activation)
    assert newton_on_device.fits_kernel(f)
    for evaluations in counts:
        given = problem(f, max_evaluations=evaluations)
        for a, b in zip(
            newton_on_device.in_kernel(given), newton_on_device.in_tensors(given), strict=True
        ):
            assert a.dtype == b.dtype
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("gamma", [2.0, normal(5, BATCH).clamp(min=0)], ids=["one", "each"])
def test_quadratics(gamma: Tensor | float) -> None:
    if isinstance(gamma, Tensor):
        assert (gamma == 0).any()
        gamma = gamma.to(DEVICE)
    f = network() + quadratic(gamma, normal(1, BATCH, 3).to(DEVICE))
    assert newton_on_device.fits_kernel(f)
    for evaluations in (1, 3):
        given = problem(f, max_evaluations=evaluations)
        for a, b in zip(
            newton_on_device.in_kernel(given), newton_on_device.in_tensors(given), strict=True
        ):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("n", [1, 3])
def test_single_precision(n: int) -> None:
    f, optimum = network(n, dtype=torch.float32), minimize(network(n), UNIT, 1e-9)
    y, value, bound, _ = newton_on_device.in_kernel(problem(f, tol=1e-3, max_evaluations=16))
    assert y.dtype == torch.float32
    assert value.dtype == bound.dtype == torch.float64
    torch.testing.assert_close(value.float(), f.value(y), rtol=1e-5, atol=1e-5)
    assert (value - bound <= 1e-3).all()
    assert (bound <= optimum.value).all()
    assert (value >= optimum.lower_bound - 1e-5).all()


@pytest.mark.slow
@pytest.mark.parametrize("where", BOXES)
def test_boxes(where: str) -> None:
    f, over = network(), BOXES[where]
    y, value, bound, _ = newton_on_device.in_kernel(problem(f, over, 1e-6, 30))
    optimum = minimize(f, over, 1e-9, "newton")
    assert over.contains(y, 0.0).all()
    torch.testing.assert_close(value, f.value(y))
    assert (value - bound <= 1e-6).all()
    assert (bound <= optimum.value + 1e-12).all()  # a GPU adds in another order
    assert (value >= optimum.lower_bound - 1e-12).all()


def test_each_sample_ends_when_its_gap_is_small_enough() -> None:
    f, tol = network(3), 1e-3
    *_, evaluations = newton_on_device.in_kernel(problem(f, tol=tol, max_evaluations=16))
    assert len(set(evaluations.tolist())) > 1
    for sample, last in enumerate(evaluations.tolist()):
        gaps = []
        for count in (last - 1, last):
            _, value, bound, _ = newton_on_device.in_tensors(problem(f, max_evaluations=count))
            gaps.append(float((value - bound)[sample]))
        assert gaps[0] > tol >= gaps[1]


@pytest.mark.parametrize("members", [None, 3])
def test_members(members: int | None) -> None:
    given = problem(network(members=members), max_evaluations=3)
    for a, b in zip(
        newton_on_device.in_kernel(given), newton_on_device.in_tensors(given), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_one_observation_with_its_axis_and_without() -> None:
    f = network(members=None)
    assert isinstance(f, ConditionedNetwork)
    one = f.take(torch.tensor([1], device=DEVICE))
    for g, shape in ((one, (1,)), (replace(one, batched=False), ())):
        y, value, *_ = newton_on_device.in_kernel(problem(g, tol=1e-6, max_evaluations=20))
        assert y.shape == (*shape, 3)
        assert value.shape == shape
        torch.testing.assert_close(value.reshape(()), minimize(f, UNIT, 1e-6).value[1])


@pytest.mark.slow
def test_a_sample_that_is_not_finite_spoils_no_other() -> None:
    mean = network()
    assert isinstance(mean, Mean)
    clean = mean.f
    bias = clean.bias[0].clone()
    bias[:, 2] = torch.nan
    spoilt = replace(clean, bias=(bias, clean.bias[1])).mean(0)
    y, value, bound, _ = newton_on_device.in_kernel(problem(spoilt))
    others = torch.arange(BATCH) != 2
    assert (y[2] == 0).all()
    assert not (value - bound)[2].isfinite()
    torch.testing.assert_close(y[others], newton_on_device.in_kernel(problem(mean))[0][others])


def test_what_the_kernel_is_not_for() -> None:
    f = network()
    joint = FICNN(2, 3, (8,), "squareplus").double().requires_grad_(False).to(DEVICE)
    others = [
        network(activation="relu"),
        network(convex=(8, 8)),
        network(n=65),
        network(convex=(2048,)),
        joint.condition(normal(1, BATCH, 2).to(DEVICE)),
        f + negative_entropy(1.0),
        f + linear(torch.zeros(3, device=DEVICE).double()),
        f.affine(torch.eye(3, device=DEVICE).double()),
    ]
    assert newton_on_device.fits_kernel(f)
    assert not any(newton_on_device.fits_kernel(g) for g in others)


COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from icnn_rl.kernels import ELU, SOFTPLUS, SQUAREPLUS
from icnn_rl.kernels.newton_triton import _newton

kinds = {{"tol": "fp64", "ridge": "fp64", "rounding": "fp64", "evaluations_out": "*i64"}}
kinds |= {{"value_out": "*fp64", "bound_out": "*fp64"}}
kinds |= dict.fromkeys(("max_evaluations", "batch", "width"), "i32")
names, sizes = _newton.arg_names, {{"n": 3, "MEMBERS": 2, "N": 4, "M": 32}}
kinds |= dict.fromkeys([*sizes, "ACTIVATION"], "constexpr")
signature = {{name: kinds.get(name, "*{kind}") for name in names}}
for activation in (SQUAREPLUS, SOFTPLUS, ELU):
    constants = sizes | {{"ACTIVATION": activation}}
    source = ASTSource(_newton, signature, {{(names.index(k),): v for k, v in constants.items()}})
    print(len(compile(source, GPUTarget("cuda", 80, 32)).asm["cubin"]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fp32", "fp64"])
def test_it_compiles_for_a_gpu_where_there_is_none(kind: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", COMPILE.format(kind=kind)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert [int(size) > 1000 for size in done.stdout.split()] == [True] * 3
