"""Every preset of ``icnn-rl fit``: an epoch on small stand-ins, its table, its pictures, again."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from numpy.typing import NDArray
from scipy.sparse import csr_array
from sklearn.datasets import load_digits, load_iris, make_multilabel_classification

from icnn_rl.cli import main
from icnn_rl.data import SYNTHETIC, Digits, Faces, MultiLabelSplit
from icnn_rl.experiments import classification, imputation, multi_label, olivetti
from icnn_rl.experiments.imputation import MISSING
from icnn_rl.runs.configuration import presets

PARTS = {
    "synthetic": tuple(f"{name}-{kind}" for kind in ("full", "partial") for name in SYNTHETIC),
    "digits": ("full", "partial", "none"),
    "mnist": ("full",),
    "mnist-conv": ("full",),
    "exemplars": ("exemplars", "classifier"),
    "bibtex": ("partial", "none"),
    "delicious": ("partial", "none"),
    "olivetti": ("convex", "free", "plain"),
    "impute": tuple(f"iris {share:.0%}" for share in MISSING),
}
FIXED = {
    "mnist-conv": ("network.context",),
    "exemplars": ("network.context",),
    "olivetti": ("network.context", "network.convex"),
}
PICTURES = {
    "synthetic": ("boundaries", "training"),
    "digits": ("hardest-full", "hardest-partial", "hardest-none", "training"),
    "mnist": ("hardest-full", "training"),
    "mnist-conv": ("hardest-full", "training"),
    "exemplars": ("exemplars", "training"),
    "bibtex": ("thresholds", "training"),
    "delicious": ("thresholds", "training"),
    "olivetti": ("completions", "training"),
    "impute": ("errors", "training"),
}


def enlarged(scale: int, margin: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The digits that scikit-learn ships, ``scale`` times as large and with a margin."""
    images, digits = load_digits(return_X_y=True)
    large = np.kron(images.reshape(-1, 8, 8), np.ones((scale, scale))) * 255 / 16
    pad = ((0, 0), (margin, margin), (margin, margin))
    return np.pad(large, pad).astype(np.uint8), digits.astype(np.uint8)


def some_digits(_: object) -> Digits:
    images, digits = enlarged(3, 2)  # 28 × 28
    return Digits(images[:300], digits[:300], images[300:400], digits[300:400])


def some_faces(_: object) -> Faces:
    images, _digits = enlarged(8, 0)  # 64 × 64
    return Faces(images[:40], np.repeat(np.arange(4, dtype=np.uint8), 10))


def some_tags(_: object) -> MultiLabelSplit:
    x, y = make_multilabel_classification(
        n_samples=300, n_features=40, n_classes=12, random_state=0
    )
    features = csr_array((x > x.mean(0)).astype(np.float32))
    labels = y.astype(np.uint8)
    names = (np.array([f"{kind} {k}" for k in range(n)]) for kind, n in (("word", 40), ("tag", 12)))
    return MultiLabelSplit(features[:200], labels[:200], features[200:], labels[200:], *names)


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data of the shapes of the real sets, which are not ours to ship."""
    monkeypatch.setattr(classification, "load_mnist", some_digits)
    monkeypatch.setattr(olivetti, "load_olivetti", some_faces)
    monkeypatch.setattr(olivetti, "TRAINING", 30)
    monkeypatch.setattr(olivetti, "NEIGHBOURS", 3)
    monkeypatch.setattr(imputation, "DATA", {"iris": load_iris})
    for name in ("load_bibtex", "load_delicious"):
        monkeypatch.setattr(multi_label, name, some_tags)


def numbers(path: Path) -> dict[str, Mapping[str, float]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = {row.pop("part"): row for row in csv.DictReader(file)}
    return {name: {k: float(v) for k, v in row.items() if v} for name, row in rows.items()}


@pytest.mark.filterwarnings("ignore:.*Early stopping criterion")  # a competitor's
@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize("preset", presets("fit"))
def test_a_preset_from_its_command_to_its_last_file(
    preset: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "300")  # no name is cut short
    run = tmp_path / "run"
    short = ["--training.epochs", "1"]
    for key in {"network.convex", "network.context"}.difference(FIXED.get(preset, ())):
        short += [f"--{key}", "[16]"]
    assert main(["fit", preset, *short, "--run-dir", str(run)]) == 0
    metrics = numbers(run / "metrics.csv")
    for row in metrics.values():
        assert all(math.isfinite(v) for name, v in row.items() if name != "threshold"), row
    assert {name.partition(",")[0] for name in metrics} >= set(PARTS[preset])
    for row in metrics.values():
        assert row.get("largest gap", 0.0) < 0.2
    for name in PICTURES[preset]:
        assert imread(run / f"{name}.png")[..., :3].std() > 0.01, name
    history = run / "history.csv"
    assert set(numbers(history)) == set(PARTS[preset])
    shown = capsys.readouterr().out
    assert main(["evaluate", str(run)]) == 0
    again = capsys.readouterr().out.strip()  # its table of the saved networks
    assert again in shown
    assert all(name in again for name in metrics)
