"""The evaluation of a saved agent on a Ray cluster, its episodes spread over the machines."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from icnn_rl.agents.cluster.connection import connect
from icnn_rl.agents.runs.environments import make_environment
from icnn_rl.agents.runs.evaluation import Evaluation, evaluate
from icnn_rl.agents.runs.portable import DESCRIPTION, WEIGHTS, load_portable

EPISODES = 10  # a task, side by side


def evaluate_remotely(
    folder: Path, environment: str, episodes: int, seed: int, address: str | None, jobs: int
) -> Evaluation:
    """Play episodes as ``evaluate`` does, with the same seeds, ten a Ray task.

    Args:
        folder: of the agent, as ``save_portable`` wrote it; its two files are sent along.
        environment: id of the task.
        episodes: how many.
        seed: of the first episode.
        address: of the cluster, as ``ray.init`` takes it; None for one on this machine.
        jobs: processors of a cluster on this machine.
    """
    ray = connect(address, jobs)
    try:
        files = ray.put({name: (folder / name).read_bytes() for name in (WEIGHTS, DESCRIPTION)})
        play = ray.remote(num_cpus=1)(_play)
        parts = ray.get(
            [
                play.remote(files, environment, min(EPISODES, episodes - first), seed + first)
                for first in range(0, episodes, EPISODES)
            ]
        )
    finally:
        ray.shutdown()
    return Evaluation(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def _play(
    files: dict[str, bytes], environment: str, episodes: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        model, config = load_portable(Path(folder), environment)
    evaluation = evaluate(model, lambda: make_environment(config.env), episodes, seed)
    return evaluation.returns, evaluation.lengths
