"""Steps a second of training on HalfCheetah-v5: ConcaveQ against SB3's TD3, SAC and DDPG.

    python benchmarks/throughput.py [--threads 1 2] [--steps 500] [--rounds 5]

One environment, one update a step, batches of 256, networks (ConcaveQ: the context path) of
256-256. The agents take turns: a round gives each ``steps`` steps, the first round is a warm-up
and not counted, and the median over the others is printed with its ratio to TD3 within the round.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings

import torch
from report import machine, table
from stable_baselines3 import DDPG, SAC, TD3
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from icnn_rl.agents import ConcaveQ

TASK = "HalfCheetah-v5"
WIDTHS = [256, 256]


def agents() -> dict[str, OffPolicyAlgorithm]:
    """The agents, set up alike."""
    common = {"seed": 0, "device": "cpu", "batch_size": 256, "learning_starts": 300}
    narrow = {"convex": (32, 32)}
    models: dict[str, OffPolicyAlgorithm] = {
        "ConcaveQ": ConcaveQ("MlpPolicy", TASK, **common),
        "ConcaveQ, convex 32-32": ConcaveQ("MlpPolicy", TASK, policy_kwargs=narrow, **common),
    }
    for peer in (TD3, SAC, DDPG):
        # A dict of its own for each: SAC adds to the one that it is given.
        widths = {"net_arch": WIDTHS}
        models[peer.__name__] = peer(
            "MlpPolicy", TASK, train_freq=1, gradient_steps=1, policy_kwargs=widths, **common
        )
    return models


def measure(threads: int, steps: int, rounds: int) -> list[list[str]]:
    """Rows of the table for a number of threads."""
    torch.set_num_threads(threads)
    models = agents()
    rates: dict[str, list[float]] = {name: [] for name in models}
    for round_ in range(rounds + 1):
        for name, model in models.items():
            start = time.perf_counter()
            model.learn(steps, reset_num_timesteps=False)
            if round_ > 0:
                rates[name].append(steps / (time.perf_counter() - start))
    return [
        [
            str(threads),
            name,
            f"{statistics.median(values):.0f}",
            f"{min(values):.0f} to {max(values):.0f}",
            f"{statistics.median(a / b for a, b in zip(values, rates['TD3'], strict=True)):.2f}",
        ]
        for name, values in rates.items()
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(arguments.threads[0])
    print(machine(), end="\n\n", flush=True)
    rows = []
    for threads in arguments.threads:
        rows += measure(threads, arguments.steps, arguments.rounds)
    print(table(["threads", "agent", "steps/s (median)", "range", "ratio to TD3"], rows))


if __name__ == "__main__":
    main()
