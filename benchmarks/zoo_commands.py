"""rl-baselines3-zoo's own commands with ConcaveQ: do they train, show, tune and take a trial up?

    pip install 'icnn-rl[zoo]'
    python benchmarks/zoo_commands.py

It stops with an error at the first that does not.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import optuna
from optuna.storages.journal import JournalFileBackend

from icnn_rl.agents import ConcaveQ, zoo

TASK = ["--env", "Pendulum-v1", "--num-threads", "1", "--device", "cpu"]
SHORT = ["-n", "400", "--eval-episodes", "1", "--seed", "0"]


def run(folder: Path, command: str, *arguments: str) -> str:
    """What a command of the zoo prints, with its runs in ``folder/logs``."""
    module = [sys.executable, "-m", "icnn_rl.agents.zoo", command, *TASK, "-f", "logs"]
    print(" ".join(["zoo", command, *arguments]), flush=True)
    done = subprocess.run([*module, *arguments], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return done.stdout


def run_commands(folder: Path) -> None:
    """Train, show, tune, and train with what a trial had."""
    run(folder, "train", *SHORT, "--eval-freq", "200", "-params", "learning_starts:100")
    trained = folder / "logs/concave_q/Pendulum-v1_1"
    model = ConcaveQ.load(trained / "Pendulum-v1.zip")
    assert model._n_updates == 300
    assert not model.policy.dueling  # as the preset has it
    assert list(np.load(trained / "evaluations.npz")["timesteps"]) == [200, 400]

    assert "Mean reward" in run(folder, "enjoy", "-n", "400", "--no-render")

    study = ["--storage", "study.log", "--study-name", "test"]
    trials = ["-optimize", "--n-trials", "2", "--n-evaluations", "2", "--no-optim-plots"]
    run(folder, "train", *SHORT, *study, *trials, "-params", "learning_starts:380")
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / "study.log")))
    first, second = optuna.load_study(storage=storage, study_name="test").trials
    assert first.value is not None
    assert first.params != second.params

    run(folder, "train", *SHORT, *study, "--trial-id", "1", "-params", "learning_starts:380")
    model = ConcaveQ.load(folder / "logs/concave_q/Pendulum-v1_3/Pendulum-v1.zip")
    expected = zoo.convert(second.params)
    assert expected.pop("learning_rate") == model.lr_schedule(1)
    assert {name: getattr(model, name) for name in expected} == expected


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        run_commands(Path(folder))


if __name__ == "__main__":
    main()
