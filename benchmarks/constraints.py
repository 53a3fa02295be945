"""Trained agents under limits on their actions: returns, and how far actions break the limits.

    python benchmarks/constraints.py RUNS [--episodes 10] [--seed 1000000]

RUNS is a folder with run folders of ``icnn-rl train`` anywhere below it: agents of HalfCheetah-v5
and Hopper-v5, of ConcaveQ, SAC or TD3, trained freely or, as the presets halfcheetah-power,
halfcheetah-ball, halfcheetah-ramp and their like for Hopper are, under a limit. One trained freely
is restricted when it acts, by each limit of those presets: ConcaveQ finds the best action within
(``predict(obs, action_set=...)``), the others have theirs projected; so has ConcaveQ once more, to
tell what the agent brings from what the best action does. One trained under a limit acts under it.
Violations are Euclidean distances of the actions that reach the task from the set; next
to them stands the largest distance by which an action had to be projected. Results go to
benchmarks/results/constraints.csv, a row a run and limit, in the place of those that were there of
the same agents and limits, and as a table to the terminal.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from report import machine, table
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from icnn_rl.agents import ConcaveQ
from icnn_rl.agents.runs.config import Config, ConstraintConfig
from icnn_rl.agents.runs.environments import make_environment
from icnn_rl.agents.runs.portable import DESCRIPTION, load_portable
from icnn_rl.envs.constraints import LimitedActions
from icnn_rl.runs.configuration import find_preset, parse_config
from icnn_rl.runs.storage import replacing

RESULTS = Path(__file__).parent / "results"
TASKS = {"HalfCheetah-v5": "halfcheetah", "Hopper-v5": "hopper"}
KINDS = ("power", "ball", "ramp")
BEST, PROJECTED = "best within", "projected"
CASE = ("task", "algorithm", "seed", "limit", "trained", "actions", "run")
FIELDS = (*CASE, "return", "spread", "violation", "projected by")


def limits(task: str) -> list[ConstraintConfig]:
    """The limits of the presets for a task."""
    found = []
    for kind in KINDS:
        preset = find_preset(f"{TASKS[task]}-{kind}", "train")
        constraint = parse_config(Config, [f"--config={preset}"]).env.constraint
        assert constraint is not None
        found.append(constraint)
    return found


def propose(
    model: OffPolicyAlgorithm, env: LimitedActions, observation: np.ndarray, actions: str
) -> np.ndarray:
    """The action that the agent wants, the best within the set if that is what is asked for."""
    known = observation[: model.observation_space.shape[0]]
    normalizer = model.get_vec_normalize_env()
    seen = known if normalizer is None else normalizer.normalize_obs(known)
    if actions == BEST and isinstance(model, ConcaveQ) and model.action_set is None:
        within = env.action_set(torch.as_tensor(observation, dtype=torch.float32).unsqueeze(0))
        return model.predict(seen, action_set=within)[0]
    return model.predict(seen, deterministic=True)[0]


def ways(model: OffPolicyAlgorithm) -> list[str]:
    """How an agent's actions may come to keep to a set."""
    if not isinstance(model, ConcaveQ):
        return [PROJECTED]
    return [BEST, PROJECTED] if model.action_set is None else [BEST]


def play(
    model: OffPolicyAlgorithm,
    config: Config,
    limit: ConstraintConfig,
    actions: str,
    episodes: int,
    seed: int,
) -> dict[str, object]:
    """Returns, the largest violation and the longest projection of some episodes."""
    env = make_environment(replace(config.env, constraint=limit))
    assert isinstance(env, LimitedActions)
    returns, violation, projected = np.zeros(episodes), 0.0, 0.0
    for episode in range(episodes):
        observation, _ = env.reset(seed=seed + episode)
        over = False
        while not over:
            action = propose(model, env, observation, actions)
            if actions == PROJECTED:
                wanted, action = action, env.nearest(action).astype(np.float32)
                projected = max(projected, float(np.linalg.norm(wanted - action)))
            observation, reward, terminated, truncated, info = env.step(action)
            violation = max(violation, info["violation"])
            returns[episode] += float(reward)
            over = terminated or truncated
    env.close()
    return {
        "return": f"{returns.mean():.1f}",
        "spread": f"{returns.std():.1f}",
        "violation": f"{violation:.1e}",
        "projected by": f"{projected:.2f}",
    }


def write(rows: list[dict[str, object]]) -> None:
    """Add rows to the results; those of the same cases go."""
    path = RESULTS / "constraints.csv"
    with path.open(newline="") as file:
        old = list(csv.DictReader(file))
    new = {tuple(str(row[name]) for name in CASE) for row in rows}
    kept = [row for row in old if tuple(row[name] for name in CASE) not in new]
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows([*kept, *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1_000_000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    for description in sorted(arguments.runs.rglob(DESCRIPTION)):
        model, config = load_portable(description.parent)
        if config.env.id not in TASKS:
            continue
        own = config.env.constraint
        for limit, actions in product(limits(config.env.id) if own is None else [own], ways(model)):
            row: dict[str, object] = {
                "task": config.env.id,
                "algorithm": config.algorithm,
                "seed": config.seed,
                "limit": f"{limit.kind} {limit.limit}",
                "trained": "freely" if own is None else "under it",
                "actions": actions,
                **play(model, config, limit, actions, arguments.episodes, arguments.seed),
                "run": description.parent.relative_to(arguments.runs),
            }
            rows.append(row)
            write(rows)
    if not rows:
        raise SystemExit(f"{arguments.runs} holds no trained agent of {', '.join(TASKS)}")
    print(machine())
    print(table(FIELDS, [[row[name] for name in FIELDS] for row in rows]))


if __name__ == "__main__":
    main()
