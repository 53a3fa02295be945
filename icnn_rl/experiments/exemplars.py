"""Exemplars of MNIST: what a classifier finds most typical of each digit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from icnn_rl.experiments.classification import CLASSES, MNIST, Classifier
from icnn_rl.experiments.config import FitConfig
from icnn_rl.networks import FICNN
from icnn_rl.runs.pictures import save
from icnn_rl.sets import Box
from icnn_rl.solvers import Solution
from icnn_rl.structured.exemplars import ExemplarLoss, exemplars
from icnn_rl.structured.training import Row, Trainer

LEARNED, PLAIN = "exemplars", "classifier"
PIXELS = Box(0.0, 1.0)
CURVATURE = 0.05  # γ: two images, 50 to 100 apart in ‖·‖², then differ by twice the class margin
WEIGHT = 0.1  # of the exemplars' margins


class Exemplars(MNIST):
    """A network that learns exemplars beside the classes, and one that learns only these."""

    unused = ("network.context",)

    def __init__(self, config: FitConfig) -> None:
        if config.convexity != ("full",):
            raise ValueError(
                f"convexity: exemplars need networks convex in x and y together, expected [full]; "
                f"got {list(config.convexity)}"
            )
        if config.standardize:
            raise ValueError("standardize: exemplars are looked for in [0, 1], expected false")
        if config.network.dropout:
            raise ValueError(
                f"network.dropout: exemplars are learned without, got {config.network.dropout}"
            )
        super().__init__(config)

    def measure(self) -> Mapping[str, Row]:
        """Errors, and whether exemplars are like the images of their class."""
        rows = super().measure()
        return {name: row | self._measure_exemplars(name) for name, row in rows.items()}

    def draw(self, folder: Path) -> Mapping[str, Path]:
        """The exemplars of both networks, with the regulariser and without."""
        return {"exemplars": self._draw_exemplars(folder / "exemplars.png")}

    def _names(self) -> Sequence[str]:
        return LEARNED, PLAIN

    def _network(self, convexity: str) -> Classifier:
        # Not normalised: with it the ten exemplars became one, near the mean of all images.
        network = self.config.network
        net = FICNN(self.shape[0], CLASSES, network.convex, network.activation)
        if convexity == LEARNED:  # before a trainer keeps a copy of the network's state
            net.register_buffer("rivals", self.y.T @ self.x / self.y.sum(0).unsqueeze(1))
        return net

    def _trainer(self, convexity: str) -> Trainer:
        trainer = super()._trainer(convexity)
        if convexity == LEARNED:
            net = trainer.net
            assert isinstance(net, FICNN)
            rivals = net.get_buffer("rivals")
            trainer.objective = ExemplarLoss(
                trainer.objective, net, PIXELS, CURVATURE, WEIGHT, rivals
            )
        return trainer

    def _exemplars(self, name: str, curvature: float = CURVATURE) -> Solution:
        net = self.parts[name].net
        assert isinstance(net, FICNN)
        classes = torch.eye(CLASSES, device=self.x.device)
        return exemplars(net, classes, PIXELS, curvature)

    def _nearest(self, points: Tensor) -> Tensor:
        """Rows of the training images at the least angle to some points."""
        directions = self.x / self.x.norm(dim=1, keepdim=True)
        nearest: Tensor = (points @ directions.T).argmax(1)
        return nearest

    def _measure_exemplars(self, name: str) -> Row:
        """How many exemplars the other network takes for their class, and how sure they are."""
        found = self._exemplars(name)
        (other,) = set(self.parts) - {name}
        seen_as = self._scores(other, found.y).argmax(1)
        recognised = seen_as == torch.arange(CLASSES, device=seen_as.device)
        return {
            "recognised exemplars": float(recognised.sum()),
            "largest gap, exemplars": found.gap.max().item(),
            "evaluations, exemplars": found.evaluations.double().mean().item(),
        }

    def _draw_exemplars(self, path: Path) -> Path:
        found = self._exemplars(LEARNED)
        rows = {
            "exemplars": found.y,
            "nearest image": self.x[self._nearest(found.y)],
            "the same, γ = 0": self._exemplars(LEARNED, 0.0).y,
            "classifier": self._exemplars(PLAIN).y,
            "the same, γ = 0 ": self._exemplars(PLAIN, 0.0).y,
        }
        figure = Figure(figsize=(10.5, 5.2), layout="constrained", dpi=150)
        grid = figure.subplots(len(rows), CLASSES)
        for line, (label, images) in zip(grid, rows.items(), strict=True):
            for axes, image in zip(line, images.cpu(), strict=True):
                axes.imshow(image.view(self.image).numpy(), cmap="gray_r", vmin=0, vmax=1)
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
            line[0].set_ylabel(label, rotation=0, ha="right", va="center")
        for axes, gap in zip(grid[0], found.gap.tolist(), strict=True):
            axes.set_title(f"gap {gap:.0e}", fontsize="small")
        figure.suptitle(
            f"argmin f(x, e_k) + γ/2 |x|² over [0, 1]^{self.x.shape[1]}, γ = {CURVATURE:g}, each "
            "with its certified gap",
            fontsize="medium",
        )
        return save(figure, path)
