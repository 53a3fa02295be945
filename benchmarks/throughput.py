"""Steps a second of training on HalfCheetah-v5: ConcaveQ against SB3's TD3, SAC and DDPG.

    python benchmarks/throughput.py [--device cpu] [--threads 1 2] [--envs 1] [--steps 500]
        [--rounds 5] [--agents ConcaveQ SAC]

One update a step of an environment, whatever the number of environments, batches of 256, networks
(ConcaveQ: the context path) of 256-256. ``ConcaveQ, compiled`` makes an update one CUDA graph, and
is left out on the CPU; TD3 is always there, and all others by default. The agents take turns: a
round gives each ``steps`` steps, the first round is a warm-up and not counted, and the median over
the others is printed with its ratio to TD3 within the round.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from copy import deepcopy
from typing import Any

import torch
from report import machine, table
from stable_baselines3 import DDPG, SAC, TD3
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from icnn_rl.agents import ConcaveQ

TASK = "HalfCheetah-v5"
WIDTHS = [256, 256]


AGENTS: dict[str, tuple[type[OffPolicyAlgorithm], dict[str, Any]]] = {
    "ConcaveQ": (ConcaveQ, {"compile": False}),
    "ConcaveQ, compiled": (ConcaveQ, {"compile": True}),
    "ConcaveQ, convex 32-32": (
        ConcaveQ,
        {"compile": False, "policy_kwargs": {"convex": (32, 32)}},
    ),
    **{peer.__name__: (peer, {"policy_kwargs": {"net_arch": WIDTHS}}) for peer in (TD3, SAC, DDPG)},
}


def make(name: str, device: str, envs: int) -> OffPolicyAlgorithm:
    """An agent, set up like the others."""
    agent, options = AGENTS[name]
    return agent(
        "MlpPolicy",
        make_vec_env(TASK, envs, seed=0),
        train_freq=1,
        gradient_steps=-1,  # as many as there were steps of an environment
        batch_size=256,
        learning_starts=100,  # within the warm-up
        seed=0,
        device=device,
        **deepcopy(options),  # SAC adds to the policy_kwargs that it is given
    )


def measure(
    names: list[str], device: str, threads: int, envs: int, steps: int, rounds: int
) -> list[list[str]]:
    """Rows of the table for a number of threads and of environments."""
    torch.set_num_threads(threads)
    models = {name: make(name, device, envs) for name in names}
    rates: dict[str, list[float]] = {name: [] for name in models}
    for round_ in range(rounds + 1):
        for name, model in models.items():
            start = time.perf_counter()
            model.learn(steps, reset_num_timesteps=False)
            if device == "cuda":
                torch.cuda.synchronize()
            if round_ > 0:
                rates[name].append(steps / (time.perf_counter() - start))
    peers = rates["TD3"]
    return [
        [
            str(threads),
            str(envs),
            name,
            f"{statistics.median(values):.0f}",
            f"{min(values):.0f} to {max(values):.0f}",
            f"{statistics.median(a / b for a, b in zip(values, peers, strict=True)):.2f}",
        ]
        for name, values in rates.items()
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--envs", type=int, nargs="+", default=[1])
    parser.add_argument("--agents", nargs="+", choices=AGENTS, default=list(AGENTS))
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(arguments.threads[0])
    gpu = f"{torch.cuda.get_device_name()}, " if arguments.device == "cuda" else ""
    print(gpu + machine(), end="\n\n", flush=True)
    names = list(dict.fromkeys([*arguments.agents, "TD3"]))
    if arguments.device == "cpu":
        names = [name for name in names if not AGENTS[name][1].get("compile")]
    rows = []
    for threads in arguments.threads:
        for envs in arguments.envs:
            rows += measure(
                names, arguments.device, threads, envs, arguments.steps, arguments.rounds
            )
    print(table(["threads", "envs", "agent", "steps/s (median)", "range", "ratio to TD3"], rows))


if __name__ == "__main__":
    main()
