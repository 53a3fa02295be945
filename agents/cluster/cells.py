"""A benchmark on a Ray cluster: which machine runs which cell is for Ray to say."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from icnn_rl.agents.benchmark.cell import Cell
from icnn_rl.agents.benchmark.running import run_cell
from icnn_rl.agents.cluster.connection import connect


class RayBackend:
    """Tasks on a Ray cluster, whose machines have this package installed.

    Results come back to the caller. Runs lie on the machine that made them: a broken cell goes on
    elsewhere only if the folder of runs is shared.

    Args:
        address: of the cluster, as ``ray.init`` takes it; None for one on this machine.
        jobs: cells at a time, for a cluster on this machine.

    Raises:
        ValueError: Ray is not installed, or there is no such cluster.
    """

    def __init__(self, address: str | None, jobs: int) -> None:
        self._ray = connect(address, jobs)
        self._run = self._ray.remote(max_retries=0)(_run)
        self._references: list[Any] = []

    def submit(self, cell: Cell, work: Path) -> Future[str]:
        """Have a cell run as soon as there is room; its result as text is to come."""
        task = self._run.options(num_cpus=cell.config.threads)
        reference = task.remote(cell, work.absolute())
        self._references.append(reference)
        future: Future[str] = reference.future()
        return future

    def stop(self) -> None:
        """Have the running cells stop, and no others begin."""
        for reference in self._references:
            self._ray.cancel(reference)  # a KeyboardInterrupt where it runs

    def close(self) -> None:
        """Give everything back, when no cell runs any more."""
        self._ray.shutdown()


def _run(cell: Cell, work: Path) -> str:
    return run_cell(cell, work, threading.Event())
