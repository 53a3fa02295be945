"""Sets of labels on BibTeX and Delicious: a network convex in the labels, and its twins.

    python benchmarks/multi_label.py bibtex delicious [--data FOLDER] [--seeds 0 1 2]

The standard splits. For every seed a new 15 % of the training rows is set aside, on which the
best epoch and the threshold are chosen by example-F1; test rows are used once, at the end.
``convex`` is the preset's network with the preset's loss; ``twin`` is the same feed-forward network
with a sigmoid a label, and that same loss; ``likelihood`` that network with the cross entropy. Each
gives its labels in three ways: threshold 0.5, tuned threshold, and the labels of the best expected
F1. Seconds are those of the training epochs. Rows go to benchmarks/results/multi_label.csv as they
are measured, in place of those of the same data.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import torch
from report import machine, table

from icnn_rl.experiments.config import FitConfig
from icnn_rl.experiments.experiment import build
from icnn_rl.runs.configuration import find_preset, parse_config

FILE = Path(__file__).parent / "results" / "multi_label.csv"
TWIN = ["--convexity=[none]", "--training.learning_rate=1.0e-3"]  # the better one on held-out rows
NETWORKS = {
    "convex": ["--convexity=[partial]"],
    "twin": TWIN,
    "likelihood": [*TWIN, "--loss=log_likelihood"],
}
SCORES = ("example-F1", "micro-F1", "macro-F1")
COLUMNS = ("data", "network", "labels by", "seed", *SCORES, "threshold", "epoch", "seconds")


def measure(data: str, network: str, seed: int, folder: str | None) -> list[dict[str, object]]:
    """Train one network; a row for each way to choose the labels."""
    overrides = [*NETWORKS[network], f"--seed={seed}"]
    if folder is not None:
        overrides.append(f"--data={folder}")
    preset = find_preset(data, "fit")
    torch.manual_seed(seed)
    experiment = build(parse_config(FitConfig, [f"--config={preset}", *overrides]))
    (part,) = experiment.parts.values()
    for _ in part.run():
        pass
    seconds = round(sum(row["seconds"] for row in part.history), 1)
    head = {"data": data, "network": network, "seed": seed, "epoch": part.best_epoch}
    return [
        head
        | {"labels by": name.split(", ")[1], "seconds": seconds}
        | {key: round(row[key], 4) for key in (*SCORES, "threshold")}
        for name, row in experiment.measure().items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="+", choices=("bibtex", "delicious"))
    parser.add_argument("--data", help="folder with the files; by default the cache")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(machine(), end="\n\n")
    others = [row for row in _read() if row["data"] not in arguments.sets]
    rows: list[dict[str, object]] = []
    for data in arguments.sets:
        for seed in arguments.seeds:
            for network in NETWORKS:
                rows += measure(data, network, seed, arguments.data)
                _write(others + rows)
    cells = []
    for data in arguments.sets:
        of_data = [row for row in rows if row["data"] == data]
        for key in dict.fromkeys((row["network"], row["labels by"]) for row in of_data):
            own = [row for row in of_data if (row["network"], row["labels by"]) == key]
            scores = [" ".join(f"{row[score]:.3f}" for row in own) for score in SCORES]
            cells.append([data, *key, *scores])
    print(table(["data", "network", "labels by", *SCORES], cells))


def _read() -> list[dict[str, object]]:
    if not FILE.exists():
        return []
    with FILE.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _write(rows: list[dict[str, object]]) -> None:
    with FILE.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
