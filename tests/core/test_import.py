"""The core stands alone, and importing loads nothing heavy before it is needed."""

from __future__ import annotations

import subprocess
import sys

import icnn_rl

HEAVY = (
    "stable_baselines3",
    "gymnasium",
    "wandb",
    "numba",
    "scipy",
    "highspy",
    "matplotlib",
    "sklearn",
)


def loaded(code: str) -> set[str]:
    script = f"{code}\nimport sys; print(*(m for m in {HEAVY} if m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_import_loads_no_heavy_package() -> None:
    assert loaded("import icnn_rl") == set()


def test_networks_and_functions_need_no_solver_package() -> None:
    code = """
import torch, icnn_rl
f = icnn_rl.PICNN(3, 2).condition(torch.zeros(1, 3)) + icnn_rl.linear(torch.ones(2))
f.value_and_gradient(torch.zeros(2))
f.hessian(torch.zeros(2))
"""
    assert loaded(code) == set()


def test_agents_need_no_solver_package() -> None:
    assert loaded("import icnn_rl.agents") == {"stable_baselines3", "gymnasium"}


def test_every_public_name_is_there() -> None:
    for name in icnn_rl.__all__:
        assert getattr(icnn_rl, name).__doc__
