"""The left half of faces from the right one: what convexity costs, and what else one could use.

    python benchmarks/completion.py [--seeds 0 1 2] [--data FOLDER]

Trains the networks of `icnn-rl fit olivetti` (350 images of 35 people) and measures them on 50
images of five other people; a row a method and seed goes to benchmarks/results/completion.csv as
it is measured. Seconds are processor time, on one thread.
"""

from __future__ import annotations

import argparse
import csv
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import torch

from icnn_rl.experiments.config import FitConfig
from icnn_rl.experiments.olivetti import Olivetti
from icnn_rl.runs.configuration import find_preset, parse_config
from icnn_rl.runs.storage import replacing

RESULTS = Path(__file__).parent / "results" / "completion.csv"
COLUMNS = (
    "seed",
    "method",
    "mse",
    "mse, network alone",
    "largest gap",
    "evaluations",
    "training seconds",
    "torch",
    "scikit-learn",
)

Row = dict[str, object]


def measured(config: FitConfig) -> list[Row]:
    """A row for each method, trained with one seed."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    experiment = Olivetti(config)
    seconds = {}
    for name, part in experiment.parts.items():
        start = time.process_time()
        for _ in part.run():
            pass
        seconds[name] = f"{time.process_time() - start:.1f}"
    versions = {package: version(package) for package in ("torch", "scikit-learn")}
    return [
        {"seed": config.seed, "method": name, "training seconds": seconds.get(name, "")}
        | {key: f"{value:.4g}" for key, value in row.items()}
        | versions
        for name, row in experiment.measure().items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data", help="folder or file of the data; by default the cache")
    arguments = parser.parse_args()
    config = parse_config(FitConfig, [f"--config={find_preset('olivetti', 'fit')}"])
    rows: list[Row] = []
    for seed in arguments.seeds:
        rows += measured(replace(config, seed=seed, data=arguments.data))
        with replacing(RESULTS) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        print(*(f"{row['method']}: {row['mse']}" for row in rows if row["seed"] == seed), sep="\n")


if __name__ == "__main__":
    main()
