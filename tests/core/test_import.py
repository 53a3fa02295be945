"""The core stands alone, and importing loads nothing heavy before it is needed."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import icnn_rl

ROOT = Path(__file__).parents[2]
HEAVY = (
    "gymnasium",
    "matplotlib",
    "numba",
    "pooch",
    "ray",
    "scipy",
    "sklearn",
    "stable_baselines3",
    "triton",
    "wandb",
)


def loaded(code: str) -> set[str]:
    """The heavy packages that a program loads, started in the root of the checkout."""
    script = f"{code}\nimport sys; print(*(m for m in {HEAVY} if m in sys.modules))"
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.slow
def test_import_loads_no_heavy_package() -> None:
    assert loaded("import icnn_rl") == set()


@pytest.mark.slow
def test_networks_and_functions_need_no_solver_package() -> None:
    code = """
import torch, icnn_rl
f = icnn_rl.PICNN(3, 2).condition(torch.zeros(1, 3)) + icnn_rl.linear(torch.ones(2))
f.value_and_gradient(torch.zeros(2))
f.hessian(torch.zeros(2))
"""
    assert loaded(code) == set()


@pytest.mark.slow
def test_agents_need_no_solver_package() -> None:
    assert loaded("import icnn_rl.agents") == {"stable_baselines3", "gymnasium"}


@pytest.mark.slow
def test_the_checkout_has_all_packages_that_are_installed() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        packages = tomllib.load(file)["tool"]["setuptools"]["packages"]
    loaded(f"import {', '.join(packages)}")
    folders = {path.parent for path in (ROOT / "icnn_rl").glob("**/*.py")}
    for top in ("agents", "envs", "configs"):
        folders |= {
            ROOT / "icnn_rl" / path.parent.relative_to(ROOT)
            for path in (ROOT / top).glob("**/*.py")
        }
    assert {".".join(f.relative_to(ROOT).parts) for f in folders} == set(packages)


def test_every_public_name_is_there() -> None:
    for name in icnn_rl.__all__:
        assert getattr(icnn_rl, name).__doc__
