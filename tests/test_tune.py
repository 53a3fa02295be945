"""The search for good keys: several seeds a trial, stopped early, continued."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial
from tiny_runs import TINY, evaluations

from icnn_rl.agents.runs.config import Config
from icnn_rl.cli import main
from icnn_rl.runs.configuration import parse_config

SEARCH = """
agent.learning_rate: {low: 1e-4, high: 1e-2, log: true}
agent.policy_kwargs.convex: [[4], [8]]
"""


def tune(folder: Path, *arguments: str) -> int:
    """The exit code of a search in a folder."""
    (folder / "search.yaml").write_text(SEARCH)
    where = [f"--work-dir={folder / 'study'}", f"--search={folder / 'search.yaml'}"]
    return main(["tune", "--env=Pendulum-v1", *TINY, *where, *arguments])


def study(folder: Path) -> optuna.Study:
    (folder / "study").mkdir(exist_ok=True)
    storage = f"sqlite:///{folder / 'study' / 'study.db'}"
    return optuna.create_study(
        study_name="study", storage=storage, direction="maximize", load_if_exists=True
    )


@pytest.mark.slow
def test_a_trial_is_the_mean_of_its_seeds_and_the_best_can_be_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--trials=1", "--seeds", "3", "4", "--steps=50"]
    assert tune(tmp_path, *command) == 0
    (trial,) = study(tmp_path).trials
    runs = tmp_path / "study" / "trials" / "0000" / "Pendulum-v1" / "concave_q"
    finals = [float(evaluations(runs / seed)[-1]["return_mean"]) for seed in ("3", "4")]
    assert finals[0] != finals[1]
    assert trial.value == pytest.approx(np.mean(finals))

    best = parse_config(Config, [f"--config={tmp_path / 'study' / 'best.yaml'}"])
    assert best.agent.learning_rate == trial.params["agent.learning_rate"]
    assert str(list(best.agent.policy_kwargs.convex)) == trial.params["agent.policy_kwargs.convex"]
    assert best.training.steps == 50

    # There is nothing left to do, and another search cannot go on here.
    assert tune(tmp_path, *command) == 0
    assert len(study(tmp_path).trials) == 1
    assert tune(tmp_path, *command, "--agent.gamma=0.9") == 2
    assert "has a study of another configuration" in capsys.readouterr().err


@pytest.mark.slow
def test_a_stopped_trial_goes_on_and_ends_early_where_it_lags(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = study(tmp_path)
    space: dict[str, Any] = {
        "agent.learning_rate": FloatDistribution(1e-4, 1e-2, log=True),
        "agent.policy_kwargs.convex": CategoricalDistribution(["[4]", "[8]"]),
    }
    params = {"agent.learning_rate": 3e-3, "agent.policy_kwargs.convex": "[8]"}
    values = dict.fromkeys(range(50, 1000, 50), 0.0)  # better than Pendulum allows
    for _ in range(5):
        before.add_trial(
            create_trial(value=0.0, params=params, distributions=space, intermediate_values=values)
        )
    stopped = before.ask(space)  # and never told
    command = ["--trials=6", "--seeds", "0", "1", "--steps=1e6", "--training.evaluate_every=50"]
    assert tune(tmp_path, *command) == 0
    *_, failed, last = study(tmp_path).trials
    assert (failed.number, failed.state) == (stopped.number, TrialState.FAIL)
    assert (last.params, last.state) == (stopped.params, TrialState.PRUNED)
    assert max(last.intermediate_values) < 1000
    folders = [path.name for path in (tmp_path / "study" / "trials").iterdir()]
    assert folders == [f"{stopped.number:04d}"]
    assert f"trial {stopped.number}: stopped early" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "search", "message"),
    [
        ([], "agent.gama: [1]", "unknown key agent.gama; did you mean agent.gamma?"),
        ([], "agent.gamma: [fast]", "agent.gamma: expected float, got 'fast'"),
        ([], "agent.gamma: 0.9", "agent.gamma: expected a list of choices, or a mapping of low"),
        ([], "agent.gamma: {low: 0.9}", "agent.gamma: expected a list of choices, or a mapping"),
        (["--trials=0"], "{}", "--trials has to be at least 1, not 0"),
        (["--trial=3"], "{}", "unknown key trial; did you mean trials?"),
    ],
)
def test_a_bad_search_is_one_sentence(
    arguments: list[str],
    search: str,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "s.yaml").write_text(search)
    where = [f"--work-dir={tmp_path / 'study'}", f"--search={tmp_path / 's.yaml'}"]
    assert main(["tune", "--env=Pendulum-v1", *where, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "study").exists()


def test_algorithms_without_a_search_ask_for_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "pendulum", "--algorithm=sac"]) == 2
    assert "--search: expected what to try for sac" in capsys.readouterr().err
