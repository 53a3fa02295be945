"""What the benchmarks share: a description of the machine, and tables in Markdown."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch


def machine() -> str:
    """Processor, cores, threads and versions, on one line."""
    cpuinfo = Path("/proc/cpuinfo")
    model = platform.processor() or platform.machine()
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0].split(":", 1)[1].strip() if names else model
    packages = ", ".join(
        f"{name} {_version(name)}"
        for name in ("icnn-rl", "torch", "numpy", "numba", "scipy", "stable-baselines3")
    )
    return (
        f"{model}, {os.cpu_count()} cores, {torch.get_num_threads()} thread(s), "
        f"Python {platform.python_version()}, {packages}"
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # run from its sources
        return "not installed"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
