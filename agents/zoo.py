"""ConcaveQ in rl-baselines3-zoo: hyperparameters of tasks, what Optuna samples, and the commands.

    pip install 'icnn-rl[zoo]'
    python -m icnn_rl.agents.zoo train --env Pendulum-v1
    python -m icnn_rl.agents.zoo enjoy --env Pendulum-v1 -f logs
    python -m icnn_rl.agents.zoo train --env Pendulum-v1 -optimize --n-trials 20

All that follows the first word are arguments of ``rl_zoo3``. A program of one's own begins with
``register()``, and names this module as ``-conf icnn_rl.agents.zoo``.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from icnn_rl.agents.concave_q import ConcaveQ
from icnn_rl.runs.configuration import CONFIGS, find_preset, read_mapping

if TYPE_CHECKING:
    from optuna import Trial

NAME = "concave_q"
NETWORKS = {"small": [64, 64], "medium": [256, 256], "large": [512, 512]}


def _entry(preset: str) -> dict[str, Any]:
    """A preset of ``icnn-rl train`` with the keys of the zoo."""
    plain = read_mapping(find_preset(preset, "train"))
    agent = plain["agent"]
    entry = {"policy": "MlpPolicy", "n_timesteps": plain["training"]["steps"], **agent}
    if entry.pop("learning_rate_end_factor") < 1:
        entry["learning_rate"] = f"lin_{agent.get('learning_rate', 1e-3)}"  # to 0, the zoo's end
    if plain["env"].get("normalize_observations"):
        entry["normalize"] = {"norm_obs": True, "norm_reward": False}
    return entry


PRESETS: dict[str, str] = read_mapping(CONFIGS / "algorithms" / "concave-q.yaml")["presets"]
hyperparams = {task.rpartition(":")[2]: _entry(preset) for task, preset in PRESETS.items()}
hyperparams["default"] = {"policy": "MlpPolicy", "n_timesteps": 1_000_000}


def sample(
    trial: Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]
) -> dict[str, Any]:
    """The arguments of ``ConcaveQ`` in a trial of Optuna, in the form of the zoo's samplers."""
    sampled: dict[str, Any] = {
        "one_minus_gamma": trial.suggest_float("one_minus_gamma", 1e-4, 0.03, log=True),
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 3e-3, log=True),
        "batch_size_pow": trial.suggest_int("batch_size_pow", 5, 9),
        "tau": trial.suggest_float("tau", 1e-3, 0.08, log=True),
        "exploration_noise": trial.suggest_float("exploration_noise", 0.05, 0.5),
        "action_l2": trial.suggest_categorical("action_l2", [0.0, 1.0, 10.0]),
        "net_arch": trial.suggest_categorical("net_arch", list(NETWORKS)),
        "n_critics": trial.suggest_int("n_critics", 1, 5),
        "dueling": trial.suggest_categorical("dueling", [True, False]),
    }
    if not additional_args["using_her_replay_buffer"]:
        return convert(sampled)
    strategies = ["final", "episode", "future"]
    sampled |= {
        "n_sampled_goal": trial.suggest_int("n_sampled_goal", 1, 5),
        "goal_selection_strategy": trial.suggest_categorical("goal_selection_strategy", strategies),
    }
    arguments = convert(sampled)
    arguments["replay_buffer_kwargs"] |= additional_args["her_kwargs"]
    return arguments


def convert(sampled: dict[str, Any]) -> dict[str, Any]:
    """The arguments of ``ConcaveQ`` for the values of a trial, as a study keeps them."""
    arguments = dict(sampled)
    arguments["gamma"] = 1 - arguments.pop("one_minus_gamma")
    arguments["batch_size"] = 2 ** arguments.pop("batch_size_pow")
    network = {name: arguments.pop(name) for name in ("n_critics", "dueling")}
    network["net_arch"] = NETWORKS[arguments.pop("net_arch")]
    goals = arguments.keys() & {"n_sampled_goal", "goal_selection_strategy"}
    if goals:
        arguments["replay_buffer_kwargs"] = {name: arguments.pop(name) for name in goals}
    return arguments | {"policy_kwargs": network}


def register() -> None:
    """Add ``ConcaveQ`` to the algorithms of the zoo."""
    from rl_zoo3 import ALGOS, hyperparams_opt

    ALGOS[NAME] = ConcaveQ
    hyperparams_opt.HYPERPARAMS_SAMPLER[NAME] = sample
    hyperparams_opt.HYPERPARAMS_CONVERTER[NAME] = convert


def main() -> None:
    """Run a command of the zoo, ``train`` or ``enjoy``, with ``ConcaveQ`` for its algorithm."""
    from rl_zoo3.enjoy import enjoy
    from rl_zoo3.train import train

    register()
    commands = {"train": train, "enjoy": enjoy}
    command, *arguments = sys.argv[1:] or [""]
    if command not in commands:
        sys.exit(f"icnn_rl.agents.zoo: expected train or enjoy first, got {command!r}")
    hyperparameters = ["-conf", "icnn_rl.agents.zoo"] if command == "train" else []
    sys.argv[1:] = ["--algo", NAME, *hyperparameters, *arguments]
    commands[command]()


if __name__ == "__main__":
    main()
