"""A training step of convex networks against their feed-forward twin's, side by side on MNIST.

    python benchmarks/training_speed.py mnist-conv --data FOLDER --epochs 2

The networks take their steps in turn, a minibatch of 128 each, in one thread. A step is everything:
inference with a certified gap, the gradient, the optimiser, the projection.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from report import machine, table

from icnn_rl.experiments.config import FitConfig
from icnn_rl.experiments.experiment import build
from icnn_rl.runs.configuration import find_preset, parse_config

PERIODS = 8  # that the steps are cut into


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("preset", choices=("mnist", "mnist-conv"))
    parser.add_argument("--data", help="folder with MNIST; by default the cache")
    parser.add_argument("--epochs", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    overrides = ["--convexity=[full,partial,none]", f"--training.epochs={arguments.epochs}"]
    if arguments.data:
        overrides.append(f"--data={arguments.data}")
    preset = find_preset(arguments.preset, "fit")
    experiment = build(parse_config(FitConfig, [f"--config={preset}", *overrides]))
    runs = {name: part.run() for name, part in experiment.parts.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(next(iter(experiment.parts.values())).steps):
        for name, run in runs.items():
            start = time.perf_counter()
            row = next(run)
            if row is None:  # or else the time holds a validation
                seconds[name].append(time.perf_counter() - start)
    print(machine(), end="\n\n")
    cut = {name: np.array_split(np.array(times), PERIODS) for name, times in seconds.items()}
    twin = [np.median(part) for part in cut["none"]]
    rows = []
    for name, parts in cut.items():
        medians = [np.median(part) for part in parts]
        ratios = [f"{own / other:.2f}" for own, other in zip(medians, twin, strict=True)]
        total = sum(seconds[name]) / sum(seconds["none"])
        rows.append([name, f"{1e3 * np.median(seconds[name]):.1f}", *ratios, f"{total:.2f}"])
    spans = [f"{k}/{PERIODS}" for k in range(1, PERIODS + 1)]
    print(table(["convexity", "median, ms", *(f"ratio {s}" for s in spans), "total"], rows))


if __name__ == "__main__":
    main()
