"""Decision boundaries in the plane, of networks convex in x and y and of networks convex in y."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Tensor

from icnn_rl.data import SYNTHETIC, make_synthetic
from icnn_rl.experiments.config import FitConfig
from icnn_rl.experiments.experiment import Experiment
from icnn_rl.networks import FICNN, PICNN
from icnn_rl.runs.pictures import COLORS, save
from icnn_rl.sets import Simplex
from icnn_rl.structured.classifier import classification_loss, vertex_energies
from icnn_rl.structured.model import StructuredModel
from icnn_rl.structured.training import Row, Trainer

POINTS = 300  # of each set
EXTENT = 1.15  # of the pictures, from the origin
PIXELS = 240  # a side


class Synthetic(Experiment):
    """A network of each convexity on each of the sets of ``make_synthetic``.

    Args:
        config: of the experiment.
    """

    unused = ("data", "standardize", "network.dropout", "training.patience")

    def __init__(self, config: FitConfig) -> None:
        super().__init__(config)
        if "none" in config.convexity:
            raise ValueError("convexity: expected full or partial for this experiment, got none")
        self.data = {name: self._points(name) for name in SYNTHETIC}
        self.models: dict[str, StructuredModel] = {}
        self.parts = {
            f"{name}-{convexity}": self._trainer(name, convexity)
            for convexity in config.convexity
            for name in self.data
        }

    def measure(self) -> Mapping[str, Row]:
        """Accuracies on the points that were trained on: by vertex and by minimum."""
        return {part: self._measure(part) for part in self.parts}

    def draw(self, folder: Path) -> Mapping[str, Path]:
        """The regions of the classes, a row for each convexity."""
        rows, columns = len(self.config.convexity), len(self.data)
        size = (2.3 * columns, 2.4 * rows)
        figure = Figure(figsize=size, layout="constrained", dpi=150)
        axes = np.ravel(figure.subplots(rows, columns))
        for axis, part in zip(axes, self.parts, strict=True):
            self._draw(axis, part)
        for k, convexity in enumerate(self.config.convexity):
            axes[k * columns].set_ylabel({"full": "FICNN", "partial": "PICNN"}[convexity])
        return {"boundaries": save(figure, folder / "boundaries.png")}

    def _points(self, name: str) -> tuple[Tensor, Tensor]:
        points, labels = make_synthetic(name, POINTS, seed=self.config.seed)
        x = torch.as_tensor(points, dtype=torch.float32, device=self.config.device)
        y = torch.eye(labels.max() + 1)[torch.as_tensor(labels)]
        return x, y.to(x)

    def _trainer(self, name: str, convexity: str) -> Trainer:
        config, network = self.config, self.config.network
        x, y = self.data[name]
        classes = y.shape[1]
        net = (
            FICNN(2, classes, network.convex, network.activation)
            if convexity == "full"
            else PICNN(2, classes, network.context, network.convex, network.activation)
        ).to(config.device)
        self.require_hessian(net, convexity)
        model = self.models[f"{name}-{convexity}"] = StructuredModel(net, Simplex())
        loss = classification_loss(config.loss, classes, config.device)
        return Trainer(net, partial(loss, model), x, y, config.training, seed=config.seed)

    def _classes(self, part: str, x: Tensor) -> Tensor:
        with torch.no_grad():
            return vertex_energies(self.models[part], x).argmin(1)

    def _measure(self, part: str) -> Row:
        x, y = self.data[part.split("-")[0]]
        truth, solution = y.argmax(1), self.models[part].infer(x)
        of_vertex, of_minimum = self._classes(part, x), solution.y.argmax(1)
        return {
            "accuracy": (of_vertex == truth).double().mean().item(),
            "accuracy, simplex": (of_minimum == truth).double().mean().item(),
            "largest gap": solution.gap.max().item(),
        }

    def _draw(self, axes: Axes, part: str) -> None:
        name = part.split("-")[0]
        x, y = self.data[name]
        truth = y.argmax(1)
        accuracy = (self._classes(part, x) == truth).double().mean().item()
        steps = torch.linspace(-EXTENT, EXTENT, PIXELS)
        pixels = torch.cartesian_prod(steps, steps).to(x)
        regions = self._classes(part, pixels).view(PIXELS, PIXELS).T.cpu().numpy()
        points, labels, ticks = x.cpu().numpy(), truth.cpu().numpy(), steps.numpy()
        colors = COLORS[: y.shape[1]]
        axes.imshow(
            regions,
            cmap=ListedColormap(colors),
            alpha=0.35,
            extent=(-EXTENT, EXTENT, -EXTENT, EXTENT),
            origin="lower",
            vmin=0,
            vmax=len(colors) - 1,
        )
        for k, color in enumerate(colors):
            axes.contour(ticks, ticks, regions == k, [0.5], colors="k", linewidths=0.8)
            across, up = points[labels == k].T
            axes.scatter(across, up, s=5, color=color, edgecolor="w", linewidth=0.2)
        axes.set(title=f"{name}, {100 * accuracy:.4g} %", xticks=[], yticks=[], aspect="equal")
