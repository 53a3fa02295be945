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
from torch import Tensor, nn

from icnn_rl.data import MultiLabelSplit, load_bibtex, load_delicious
from icnn_rl.experiments.config import FitConfig
from icnn_rl.experiments.experiment import Experiment
from icnn_rl.runs.pictures import finish, line_styles, save
from icnn_rl.solvers import Solution
from icnn_rl.structured.losses import LossValue
from icnn_rl.structured.metrics import THRESHOLDS, Threshold, f1_scores, tune_threshold
from icnn_rl.structured.model import StructuredModel
from icnn_rl.structured.multi_label import (
    SIGNS,
    LabelErrors,
    answers,
    choose,
    label_encoder,
    label_loss,
    label_network,
    probabilities,
)
from icnn_rl.structured.training import Objective, Row, Trainer

Array = npt.NDArray[Any]

# Chosen for the convex network on validation rows of BibTeX, and kept for Delicious.
ERRORS = LabelErrors(missed=15.0, extra=0.0)
TICKS = (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98)  # thresholds that are marked
TOL = 0.05  # the energies are in the hundreds


class Sigmoid(nn.Sequential):
    """A feed-forward network θ(x), as the energy -θ(x)ᵀy: a sigmoid a label, to compare with."""

    def project_(self) -> None:
        """Nothing has a sign to keep."""


def sigmoid_loss(
    net: nn.Module, margin: LabelErrors | None, x: Tensor, y: Tensor, start: Tensor | None = None
) -> LossValue:
    """The log-likelihood of labels y in {-1, 1}ᴸ, with the margin Δ as the convex network has it.

    It infers nothing, so y is its answer.
    """
    theta: Tensor = net(x)
    if margin is not None:
        theta = theta - margin.slope(y)
    return LossValue(F.softplus(-2 * y * theta).sum(1), y, 1.0, 0.0)


class MultiLabel(Experiment):
    """A network convex in the labels, and a feed-forward one, on the standard split.

    Rows of features are scaled to the length √m. Thresholds are tuned, and the best epoch chosen,
    by example-F1 on rows of the training part that are set aside.

    Args:
        config: of the experiment; its loss is one of ``ICNNMultiLabelClassifier``.
        data: features and labels.

    Raises:
        ValueError: the configuration asks for full convexity, or sets no rows aside.
    """

    unused = ("standardize",)

    def __init__(self, config: FitConfig, data: MultiLabelSplit) -> None:
        super().__init__(config)
        if "full" in config.convexity:
            raise ValueError(f"convexity: expected partial, none or both, got {config.convexity}")
        x, y = self._tensors(data.x_train, data.y_train)
        self.x_test, self.y_test = self._tensors(data.x_test, data.y_test)
        held_out = round(config.training.validation * len(x))
        if not 0 < held_out < len(x):
            raise ValueError(
                "training.validation: expected a share of rows to tune thresholds on, got "
                f"{config.training.validation}"
            )
        generator = torch.Generator().manual_seed(config.seed)
        rows = torch.randperm(len(x), generator=generator).to(x.device)
        (self.x_val, self.y_val), (self.x, self.y) = (
            (x[part], y[part]) for part in rows.tensor_split([held_out])
        )
        self.models: dict[str, StructuredModel] = {}
        self.predict: dict[str, Callable[[Tensor], Array]] = {}
        self.parts = {name: self._trainer(name) for name in config.convexity}

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
        axes.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
        axes.minorticks_off()
        axes.legend(frameon=False, fontsize="small")
        return {"thresholds": save(figure, folder / "thresholds.png")}

    def _tensors(self, features: Any, labels: Array) -> tuple[Tensor, Tensor]:
        x = F.normalize(torch.as_tensor(features.toarray(), dtype=torch.float32), dim=1)
        y = 2 * torch.as_tensor(labels, dtype=torch.float32) - 1
        device = self.config.device
        return (x * x.shape[1] ** 0.5).to(device), y.to(device)

    def _trainer(self, convexity: str) -> Trainer:
        config, network = self.config, self.config.network
        features, labels = self.x.shape[1], self.y.shape[1]
        loss = label_loss(config.loss, ERRORS)
        net: nn.Module
        objective: Objective
        if convexity == "none":
            encoder, width = label_encoder(features, network.context, network.dropout)
            net = Sigmoid(encoder, nn.Linear(width, labels)).to(config.device)
            margin = ERRORS if config.loss == "soft_margin" else None
            objective = partial(sigmoid_loss, net, margin)
            self.predict[convexity] = partial(_sigmoid, net)
        else:
            net = label_network(
                features,
                labels,
                network.context,
                network.convex,
                network.activation,
                network.dropout,
            ).to(config.device)
            self.models[convexity] = StructuredModel(net, SIGNS, tol=TOL)
            objective = partial(loss, self.models[convexity])
            self.predict[convexity] = lambda x: probabilities(self._infer(convexity, x).y)

        def validate() -> Row:
            threshold = self._tuned(convexity)
            return {"score": threshold.score, "threshold": threshold.value}

        return Trainer(net, objective, self.x, self.y, self.options, validate, config.seed)

    def _infer(self, name: str, x: Tensor) -> Solution:
        return answers(self.config.loss, self.models[name], x)

    def _tuned(self, name: str) -> Threshold:
        return tune_threshold(indicators_of(self.y_val), self.predict[name](self.x_val))

    def _measure(self, name: str) -> dict[str, Row]:
        truth, p = indicators_of(self.y_test), self.predict[name](self.x_test)
        tuned = self._tuned(name).value
        ways = {"0.5": 0.5, "tuned": tuned, "expected F1": None}
        rows: dict[str, Row] = {}
        for way, threshold in ways.items():
            example, micro, macro = f1_scores(truth, choose(p, threshold))
            rows[way] = {
                "example-F1": example,
                "micro-F1": micro,
                "macro-F1": macro,
                "threshold": np.nan if threshold is None else threshold,
            }
            if name in self.models:
                solution = self._infer(name, self.x_test)
                rows[way] |= {
                    "largest gap": solution.gap.max().item(),
                    "evaluations": solution.evaluations.double().mean().item(),
                }
        return rows


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
