"""Sets of labels: the tags of publications (BibTeX) and of web pages (Delicious)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from scipy.sparse import csr_array
from torch import Tensor, nn

from icnn_rl.data import MultiLabelSplit, load_bibtex, load_delicious
from icnn_rl.experiments.config import FitConfig
from icnn_rl.experiments.experiment import certificate
from icnn_rl.experiments.supervised import FeedForward, Supervised
from icnn_rl.networks import PICNN
from icnn_rl.runs.pictures import finish, line_styles, save
from icnn_rl.solvers import Solution
from icnn_rl.structured.f1 import THRESHOLDS, Threshold, choose, f1_scores, tune_threshold
from icnn_rl.structured.losses import LossValue
from icnn_rl.structured.model import StructuredModel
from icnn_rl.structured.multi_label import (
    LABEL_BOX,
    LabelErrors,
    answers,
    label_encoder,
    label_loss,
    label_network,
    probabilities,
)
from icnn_rl.structured.training import Objective, Row

Array = npt.NDArray[Any]

# Chosen for the convex network on validation rows of BibTeX, and kept for Delicious.
MARGIN = LabelErrors(missed=15.0, extra=0.0)


def sigmoid_loss(
    net: nn.Module, margin: LabelErrors | None, x: Tensor, y: Tensor, start: Tensor | None = None
) -> LossValue:
    """The log-likelihood of labels y in {-1, 1}ᴸ under the energy -θ(x)ᵀy, θ a plain network.

    Args:
        net: θ.
        margin: Δ, as for a convex network, or None.
        x: inputs.
        y: targets.
        start: not used.
    """
    theta: Tensor = net(x)
    if margin is not None:
        theta = theta - margin.slope(y)
    return LossValue(F.softplus(-2 * y * theta).sum(1), None, 1.0, 0.0)


class MultiLabel(Supervised):
    """A network convex in the labels, and a feed-forward one, on the standard split.

    Rows of features are scaled to the length √m. Example-F1 on the rows set aside chooses the
    threshold and the best epoch.

    Args:
        config: of the experiment; its loss is one of ``ICNNMultiLabelClassifier``.
        data: features and labels.

    Raises:
        ValueError: the configuration asks for full convexity, or sets no rows aside.
    """

    unused = ("standardize",)

    def __init__(self, config: FitConfig, data: MultiLabelSplit) -> None:
        if "full" in config.convexity:
            raise ValueError(f"convexity: expected partial, none or both, got {config.convexity}")
        rows = len(data.y_train)
        if not 0 < round(config.training.validation * rows) < rows:
            raise ValueError(
                "training.validation: expected a share of rows to tune thresholds on, got "
                f"{config.training.validation}"
            )
        self.predict: dict[str, Callable[[Tensor], Array]] = {}
        train, test = _tensors(data.x_train, data.y_train), _tensors(data.x_test, data.y_test)
        super().__init__(config, train, test)

    def measure(self) -> Mapping[str, Row]:
        """F1 by three ways to choose the labels, and for convex networks the certified gaps."""
        return {
            f"{name}, {way}": row for name in self.parts for way, row in self._measure(name).items()
        }

    def draw(self, folder: Path) -> Mapping[str, Path]:
        """Example-F1 against the threshold, on test rows and on those it is tuned on."""
        figure = Figure(figsize=(4.8, 3.6), layout="constrained", dpi=150)
        axes = figure.subplots()
        for name, style in line_styles(self.parts).items():
            for x, y, line in ((self.x_val, self.y_val, "--"), (self.x_test, self.y_test, "-")):
                truth, p = indicators_of(y), self.predict[name](x)
                scores = [f1_scores(truth, choose(p, t)).example for t in THRESHOLDS]
                label = f"{name}, {'test' if line == '-' else 'validation'}"
                axes.plot(THRESHOLDS, scores, line, color=style["color"], label=label)
        finish(axes, xscale="logit", xlabel="threshold", ylabel="example-F1")
        ticks = (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98)
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.legend(frameon=False, fontsize="small")
        return {"thresholds": save(figure, folder / "thresholds.png")}

    def _network(self, name: str) -> nn.Module:
        network = self.config.network
        features, labels = self.x.shape[1], self.y.shape[1]
        if name == "none":
            encoder, width = label_encoder(features, network.context, network.dropout)
            return FeedForward(encoder, nn.Linear(width, labels))
        return label_network(
            features, labels, network.context, network.convex, network.activation, network.dropout
        )

    def _objective(self, name: str, net: nn.Module) -> Objective:
        config = self.config
        loss = label_loss(config.loss, MARGIN)
        if isinstance(net, FeedForward):
            self.predict[name] = partial(_sigmoid, net)
            return partial(sigmoid_loss, net, MARGIN if config.loss == "soft_margin" else None)
        assert isinstance(net, PICNN)
        # The energies are in the hundreds, so a gap of 0.05 is small.
        self.models[name] = StructuredModel(net, LABEL_BOX, tol=0.05)
        self.predict[name] = lambda x: probabilities(self._infer(name, x).y)
        return partial(loss, self.models[name])

    def _validate(self, name: str) -> Row:
        threshold = self._tuned(name)
        return {"score": threshold.score, "threshold": threshold.value}

    def _infer(self, name: str, x: Tensor) -> Solution:
        return answers(self.config.loss, self.models[name], x)

    def _tuned(self, name: str) -> Threshold:
        return tune_threshold(indicators_of(self.y_val), self.predict[name](self.x_val))

    def _measure(self, name: str) -> dict[str, Row]:
        truth, p = indicators_of(self.y_test), self.predict[name](self.x_test)
        tuned = self._tuned(name).value
        ways = {"0.5": 0.5, "tuned": tuned, "expected F1": None}
        convex = name in self.models
        proof = certificate(self._infer(name, self.x_test)) if convex else {}
        rows: dict[str, Row] = {}
        for way, threshold in ways.items():
            example, micro, macro = f1_scores(truth, choose(p, threshold))
            rows[way] = {
                "example-F1": example,
                "micro-F1": micro,
                "macro-F1": macro,
                "threshold": np.nan if threshold is None else threshold,
            } | proof
        return rows


def _tensors(features: csr_array, labels: Array) -> tuple[Tensor, Tensor]:
    x = F.normalize(torch.as_tensor(features.toarray(), dtype=torch.float32), dim=1)
    return x * x.shape[1] ** 0.5, 2 * torch.as_tensor(labels, dtype=torch.float32) - 1


@torch.no_grad()
def _sigmoid(net: nn.Module, x: Tensor) -> Array:
    return np.asarray((2 * net(x).double()).sigmoid().cpu().numpy())


def indicators_of(y: Tensor) -> Array:
    """Labels in {-1, 1}ᴸ as integers 0 or 1."""
    return (y > 0).long().cpu().numpy()


class BibTeX(MultiLabel):
    """159 tags of publications, by their 1836 words."""

    def __init__(self, config: FitConfig) -> None:
        super().__init__(config, load_bibtex(config.data))


class Delicious(MultiLabel):
    """983 tags of web pages, by their 500 words."""

    def __init__(self, config: FitConfig) -> None:
        super().__init__(config, load_delicious(config.data))
