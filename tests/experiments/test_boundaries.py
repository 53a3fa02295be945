"""Decision boundaries in the plane: a part for each set and convexity, one picture of them all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from icnn_rl.data import SYNTHETIC
from icnn_rl.experiments.config import FitConfig, FitNetworkConfig, FitTrainingConfig
from icnn_rl.experiments.experiment import build

SMALL = FitConfig(
    experiment="synthetic",
    convexity=("full", "partial"),
    network=FitNetworkConfig(context=(30, 30), convex=(30, 30)),
    training=FitTrainingConfig(epochs=30, batch_size=25, learning_rate=1e-2),
)


def test_small_networks_learn_easy_sets_and_all_are_drawn(tmp_path: Path) -> None:
    torch.manual_seed(0)
    experiment = build(SMALL)
    names = [f"{name}-{convexity}" for convexity in SMALL.convexity for name in SYNTHETIC]
    assert list(experiment.parts) == names
    easy = ("circles-full", "circles-partial", "moons-partial")
    for name in easy:
        for _ in experiment.parts[name].run():
            pass
    metrics = experiment.measure()
    assert [metrics[name]["accuracy"] for name in easy] == [1.0] * 3
    assert min(metrics[name]["accuracy, simplex"] for name in easy) == 1
    pictures = experiment.draw(tmp_path)
    assert pictures["boundaries"].read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["boundaries.png"]


def test_networks_that_are_not_convex_have_no_part_in_it() -> None:
    with pytest.raises(ValueError, match="convexity: expected full or partial"):
        build(replace(SMALL, convexity=("full", "none")))
