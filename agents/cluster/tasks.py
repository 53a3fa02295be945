"""Tasks on a Ray cluster: cells of a benchmark, and episodes of an evaluation."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from icnn_rl.agents.benchmark.grid import Backend, run_cell
from icnn_rl.agents.benchmark.suite import Cell
from icnn_rl.agents.cluster import connect
from icnn_rl.agents.runs.environments import make_environment
from icnn_rl.agents.runs.evaluation import Evaluation, evaluate, joined
from icnn_rl.agents.runs.portable import DESCRIPTION, WEIGHTS, load_portable


class RayBackend(Backend):
    """Runs cells as tasks on a Ray cluster, whose machines have this package installed.

    Results come back to the caller. A run stays on the machine that made it: a broken cell
    continues on another machine only if the folder of runs is shared.

    Args:
        address, jobs: of the cluster, as for ``connect``.

    Raises:
        ValueError: Ray is not installed, or there is no such cluster.
    """

    def __init__(self, address: str | None, jobs: int) -> None:
        self._ray = connect(address, jobs)
        self._run = self._ray.remote(max_retries=0)(_run)
        self._references: list[Any] = []

    def submit(self, cell: Cell, work: Path) -> Future[str]:
        task = self._run.options(num_cpus=cell.config.threads)
        reference = task.remote(cell, work.absolute())
        self._references.append(reference)
        future: Future[str] = reference.future()
        return future

    def stop(self) -> None:
        for reference in self._references:
            self._ray.cancel(reference)  # raises KeyboardInterrupt in the task

    def close(self) -> None:
        self._ray.shutdown()


def _run(cell: Cell, work: Path) -> str:
    return run_cell(cell, work, threading.Event())


def evaluate_remotely(
    folder: Path, environment: str, episodes: int, seed: int, address: str | None, jobs: int
) -> Evaluation:
    """Play the same episodes as ``evaluate``, with ten episodes in each Ray task.

    Args:
        folder: of the agent, as ``save_portable`` wrote it; its two files are sent to the tasks.
        environment: id of the task.
        episodes: how many.
        seed: of the first episode.
        address, jobs: of the cluster, as for ``connect``.
    """
    ray = connect(address, jobs)
    try:
        files = ray.put({name: (folder / name).read_bytes() for name in (WEIGHTS, DESCRIPTION)})
        play = ray.remote(num_cpus=1)(_play)
        parts = ray.get(
            [
                play.remote(files, environment, min(10, episodes - first), seed + first)
                for first in range(0, episodes, 10)
            ]
        )
    finally:
        ray.shutdown()
    return joined(parts)


def _play(files: dict[str, bytes], environment: str, episodes: int, seed: int) -> Evaluation:
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        model, config = load_portable(Path(folder), environment)
    training = replace(config.training, evaluation_episodes=episodes)
    return evaluate(model, lambda: make_environment(config.env), training, seed)
