"""What a run writes down on its way, all of which its checkpoints hold."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np

from icnn_rl.agents.runs.evaluation import Evaluation
from icnn_rl.agents.runs.outputs import AgentFolder
from icnn_rl.runs.storage import replacing, write_text


class Records:
    """Rows in memory, and the files that show them; on resuming, the files are written anew.

    Args:
        run: the folder of the files.
        task: id of the environment.

    Attributes:
        progress: the table of what is logged.
        evaluations: the table of evaluations, a row each.
    """

    def __init__(self, run: AgentFolder, task: str) -> None:
        self.progress = run.progress()
        self.evaluations = run.evaluations()
        self._run = run
        self._task = task
        self._start = time.time()
        self._episodes: list[tuple[float, int, float]] = []
        self._evaluated: dict[str, np.ndarray] = {}

    def add_episode(self, episode: dict[str, Any]) -> None:
        """Add an episode of training, as ``Monitor`` reports it.

        The file is one that stable-baselines3's ``load_results`` reads.
        """
        row = episode["r"], episode["l"], round(time.time() - self._start, 6)
        self._episodes.append(row)
        if len(self._episodes) == 1:
            self._write_episodes()
        else:
            with self._run.monitor_file.open("a", encoding="utf-8") as file:
                file.write(_line(row))

    def add_evaluation(self, steps: int, evaluation: Evaluation, seconds: float) -> None:
        """Add an evaluation, also to the file that ``EvalCallback`` would write.

        Args:
            steps: of training.
            evaluation: its episodes.
            seconds: of training.
        """
        columns: dict[str, Any] = {
            "timesteps": np.array(steps),
            "results": evaluation.returns,
            "ep_lengths": evaluation.lengths,
        }
        if evaluation.successes is not None:
            columns["successes"] = evaluation.successes
        before = self._evaluated or {name: column[None][:0] for name, column in columns.items()}
        self._evaluated = {
            name: np.concatenate([before[name], column[None]])
            for name, column in columns.items()
            if name in before and before[name].shape[1:] == column.shape
        }
        self._write_evaluated()
        row = {"steps": steps} | evaluation.summary() | {"training_seconds": round(seconds, 3)}
        self.evaluations.append(row)

    def state(self) -> dict[str, Any]:
        """Everything, as plain data."""
        return {
            "progress": self.progress.rows,
            "evaluations": self.evaluations.rows,
            "evaluated": self._evaluated,
            "episodes": np.array(self._episodes, float).reshape(-1, 3),
            "start": self._start,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Have what a state holds, and nothing else."""
        self.progress.restore(state["progress"])
        self.evaluations.restore(state["evaluations"])
        self._evaluated, self._start = state["evaluated"], state["start"]
        self._episodes = [(r, int(length), t) for r, length, t in state["episodes"].tolist()]
        self._write_evaluated()
        self._write_episodes()

    def _write_episodes(self) -> None:
        head = json.dumps({"t_start": self._start, "env_id": self._task})
        lines = map(_line, self._episodes)
        write_text(f"#{head}\nr,l,t\n{''.join(lines)}", self._run.monitor_file)

    def _write_evaluated(self) -> None:
        with replacing(self._run.evaluations_file) as temporary, temporary.open("wb") as file:
            np.savez(file, **self._evaluated)  # type: ignore[arg-type]


def _line(episode: tuple[float, int, float]) -> str:
    return f"{episode[0]},{episode[1]},{episode[2]:.6f}\n"
