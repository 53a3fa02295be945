"""Exemplars of MNIST: what a classifier finds most typical of each digit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from icnn_rl.experiments.classification import CLASSES, MNIST, Classifier
from icnn_rl.experiments.config import FitConfig
from icnn_rl.experiments.experiment import certificate, image_grid
from icnn_rl.networks import FICNN
from icnn_rl.runs.pictures import save
from icnn_rl.sets import Box
from icnn_rl.solvers import Solution
from icnn_rl.structured.exemplars import ExemplarLoss, exemplars
from icnn_rl.structured.training import Objective, Row

LEARNED, PLAIN = "exemplars", "classifier"
PIXELS = Box(0.0, 1.0)
CURVATURE = 0.05  # γ: two images, at ‖·‖² = 50 to 100, then differ by twice the class margin
WEIGHT = 0.1  # of the exemplars' margins


class Exemplars(MNIST):
    """A network that learns exemplars beside the classes, and one that learns only the classes."""

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
        """Errors, and whether the other network recognises the exemplars."""
        rows = super().measure()
        return {name: row | self._measure_exemplars(name) for name, row in rows.items()}

    def draw(self, folder: Path) -> Mapping[str, Path]:
        """The exemplars of both networks, with the regulariser and without."""
        return {"exemplars": self._draw_exemplars(folder / "exemplars.png")}

    def _names(self) -> Sequence[str]:
        return LEARNED, PLAIN

    def _network(self, name: str) -> Classifier:
        # Not normalised: with normalisation all ten exemplars are near the mean of all images.
        network = self.config.network
        net = FICNN(self.shape[0], CLASSES, network.convex, network.activation)
        if name == LEARNED:  # before the trainer copies the network's state
            net.register_buffer("rivals", self.y.T @ self.x / self.y.sum(0).unsqueeze(1))
        return net

    def _objective(self, name: str, net: nn.Module) -> Objective:
        answers = super()._objective(name, net)
        if name != LEARNED:
            return answers
        assert isinstance(net, FICNN)
        return ExemplarLoss(answers, net, PIXELS, CURVATURE, WEIGHT, net.get_buffer("rivals"))

    def _exemplars(self, name: str, curvature: float = CURVATURE) -> Solution:
        net = self.parts[name].net
        assert isinstance(net, FICNN)
        classes = torch.eye(CLASSES, device=self.x.device)
        return exemplars(net, classes, PIXELS, curvature)

    def _measure_exemplars(self, name: str) -> Row:
        """How many exemplars the other network assigns to their class, and their certificates."""
        found = self._exemplars(name)
        (other,) = set(self.parts) - {name}
        seen_as = self._scores(other, found.y).argmax(1)
        recognised = seen_as == torch.arange(CLASSES, device=seen_as.device)
        proof = {f"{column}, exemplars": value for column, value in certificate(found).items()}
        return {"recognised exemplars": float(recognised.sum())} | proof

    def _draw_exemplars(self, path: Path) -> Path:
        found = self._exemplars(LEARNED)
        directions = self.x / self.x.norm(dim=1, keepdim=True)
        nearest = (found.y @ directions.T).argmax(1)  # at the least angle
        rows = [
            ("exemplars", found.y),
            ("nearest image", self.x[nearest]),
            ("the same, γ = 0", self._exemplars(LEARNED, 0.0).y),
            ("classifier", self._exemplars(PLAIN).y),
            ("the same, γ = 0", self._exemplars(PLAIN, 0.0).y),
        ]
        images = [(label, row.view(-1, *self.image)) for label, row in rows]
        figure, grid = image_grid(images, (10.5, 5.2), cmap="gray_r", vmin=0, vmax=1)
        for axes, gap in zip(grid[0], found.gap.tolist(), strict=True):
            axes.set_title(f"gap {gap:.0e}", fontsize="small")
        figure.suptitle(
            f"argmin f(x, e_k) + γ/2 |x|² over [0, 1]^{self.x.shape[1]}, γ = {CURVATURE:g}, each "
            "with its certified gap",
            fontsize="medium",
        )
        return save(figure, path)
