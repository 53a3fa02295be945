"""One concave Q and a maximum of several, on two tasks whose optimal action is bimodal.

    python benchmarks/modes.py FOLDER [--seeds 0 1 2 3 4]

Trains each method on BimodalBandit-v0 and Slalom-v0, all with the same settings and one thread. The
agents are kept in FOLDER, and those that are there are not trained again. Prints a table, writes
benchmarks/results/modes.csv, a row a run, and draws docs/modes.png from the agents of the first
seed. A share is 0 for taking no action (0, ahead) and 1 for the optimum.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from report import machine, table

from icnn_rl.agents import ConcaveQ
from icnn_rl.agents.critics import winning
from icnn_rl.envs import BimodalBandit, Slalom, returns
from icnn_rl.envs.bimodal import PEAK, POSTS

PICTURE = Path(__file__).parents[1] / "docs" / "modes.png"
RESULTS = Path(__file__).parent / "results" / "modes.csv"
METHODS = {  # form of the critic, number of modes, colour, style
    "NAF": ("quadratic", 1, "#1f6f8b", "--"),
    "NAF, 2 modes": ("quadratic", 2, "#1f6f8b", "-"),
    "PICNN": ("picnn", 1, "#c2410c", "--"),
    "PICNN, 2 modes": ("picnn", 2, "#c2410c", "-"),
}
TASKS: dict[str, Callable[[], gym.Env]] = {"bandit": BimodalBandit, "slalom": Slalom}
STEPS = {"bandit": 1000, "slalom": 3000}
EPISODES = range(1_000_000, 1_000_100)
STATE = np.array([0.0, 0.1, 0.0], np.float32)  # of the slalom, for the picture
COURSE = 1_000_000  # the episode of the picture
INK = "#1f2a37"
FIELDS = ("task", "method", "seed", "return", "idle", "optimal", "hit")


def train(task: str, method: str, seed: int) -> ConcaveQ:
    """The bandit is learnt from uniform actions, the slalom from what the agent does."""
    form, modes, *_ = METHODS[method]
    model = ConcaveQ(
        "MlpPolicy",
        TASKS[task](),
        learning_rate=3e-3,
        learning_starts=STEPS[task] if task == "bandit" else 500,
        batch_size=64,
        tau=0.02,
        gamma=1.0,
        exploration_noise=0.5,
        policy_kwargs={
            "form": form,
            "modes": modes,
            "context": (64,),
            "convex": (32,),
            "n_critics": 1,
        },
        seed=seed,
    )
    model.learn(STEPS[task])
    if task == "bandit":
        model.train(STEPS[task], 64)
    return model


def kept(folder: Path, task: str, method: str, seed: int) -> ConcaveQ:
    """The agent that the folder holds, trained if it holds none."""
    path = folder / f"{task}-{method.replace(', ', '-').replace(' ', '-')}-{seed}.zip"
    if not path.exists():
        unfinished = path.with_suffix(".tmp.zip")
        train(task, method, seed).save(unfinished)
        unfinished.rename(path)
    return ConcaveQ.load(path)


def run_course(model: ConcaveQ, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the agent was, before the first post and at each, and where the posts were."""
    env, places, posts = Slalom(), [], []
    observation, _ = env.reset(seed=seed)
    for _ in range(POSTS):
        places.append(observation[0])
        posts.append(observation[1])
        observation, *_ = env.step(model.predict(observation)[0])
    return np.array([*places, observation[0]]), np.array(posts)


def measure(task: str, model: ConcaveQ) -> dict[str, float]:
    """The return, for the bandit in expectation; where no action and the best lead; posts hit."""
    env, nothing = TASKS[task](), np.zeros(1)
    if task == "bandit":
        action = model.predict(np.zeros(1, np.float32))[0]
        q, idle, best = (env.optimal_q(nothing, a) for a in (action, nothing, np.full(1, PEAK)))
        return {"return": float(q), "idle": float(idle), "optimal": float(best)}
    policies = {"return": lambda x: model.predict(x)[0], "idle": lambda _: nothing}
    policies["optimal"] = env.optimal_action
    found = {name: float(returns(env, p, EPISODES).mean()) for name, p in policies.items()}
    passed = [places[1:] - posts for places, posts in (run_course(model, s) for s in EPISODES)]
    return found | {"hit": float((np.abs(passed) < 0.25).mean())}


def draw_q(axes: Axes, models: dict[str, ConcaveQ], env: gym.Env, state: np.ndarray) -> None:
    """Q* over the action, what was learnt of it, and the greedy actions."""
    actions = np.linspace(-1, 1, 201)[:, None]
    states = np.repeat(state[None], len(actions), 0)
    axes.plot(actions, env.optimal_q(states, actions), color=INK, lw=4, alpha=0.25, label="Q*")
    for name, model in models.items():
        *_, color, style = METHODS[name]
        obs, scaled = (torch.as_tensor(a, dtype=torch.float32) for a in (states, actions))
        with torch.no_grad():
            q = winning(-model.critic.condition(obs).value(scaled))[0].numpy()
        action = model.predict(state)[0]
        axes.plot(actions, q, color=color, ls=style, label=name)
        best = np.interp(action, actions[:, 0], q)
        axes.plot(action, best, "o", color=color, mfc="w" if style == "--" else color, zorder=3)
    axes.set_xlabel("action")


def draw(models: dict[tuple[str, str], ConcaveQ]) -> None:
    """Q on both tasks, and one course."""
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    bandit, slalom, course = figure.subplots(1, 3)
    of = {task: {name: models[task, name] for name in METHODS} for task in TASKS}
    draw_q(bandit, of["bandit"], BimodalBandit(), np.zeros(1, np.float32))
    bandit.set(title="bandit: Q", ylim=(-3, 1.3))
    draw_q(slalom, of["slalom"], Slalom(), STATE)
    slalom.set(title=f"slalom: Q at x = {STATE[0]:g} m, post at {STATE[1]:g} m", ylim=(-6, 0))
    for name, model in of["slalom"].items():
        *_, color, style = METHODS[name]
        places, posts = run_course(model, COURSE)
        course.plot(places, range(POSTS + 1), color=color, ls=style, marker=".")
        if name == next(iter(METHODS)):
            course.plot(posts, range(1, POSTS + 1), "X", color=INK, ms=10, ls="none")
    course.set(
        title="a course: ✖ posts", xlabel="m", ylabel="step", xlim=(-1, 1), xticks=(-1, 0, 1)
    )
    figure.legend(*bandit.get_legend_handles_labels(), loc="outside lower center", ncols=5)
    for axes in (bandit, slalom, course):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(PICTURE, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, object]] = []
    summary, models = [], {}
    for task in TASKS:
        for method in METHODS:
            runs = []
            for seed in arguments.seeds:
                model = kept(arguments.folder, task, method, seed)
                models.setdefault((task, method), model)
                runs.append(measure(task, model))
                rows.append({"task": task, "method": method, "seed": seed} | runs[-1])
            reached = np.array([run["return"] for run in runs])
            median, idle, optimal = np.median(reached), runs[0]["idle"], runs[0]["optimal"]
            line = [task, method, f"{median:.2f}", f"{reached.min():.2f} to {reached.max():.2f}"]
            line += [f"{optimal:.2f}", f"{(median - idle) / (optimal - idle):.0%}"]
            hits = [run["hit"] for run in runs if "hit" in run]
            summary.append([*line, f"{np.mean(hits):.0%}" if hits else ""])
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)
    draw(models)
    print(machine())
    print(table(["task", "method", "median", "range", "optimum", "share", "posts hit"], summary))


if __name__ == "__main__":
    main()
