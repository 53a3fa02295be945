"""Digits by their class, on MNIST and on the digits of scikit-learn: dense and convolutional."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from icnn_rl.data import load_mnist
from icnn_rl.experiments.config import FitConfig
from icnn_rl.experiments.experiment import certificate, image_grid
from icnn_rl.experiments.supervised import FeedForward, Supervised
from icnn_rl.networks import FICNN, PICNN, Conv, ConvFICNN, Dense, Encoder, MaxPool
from icnn_rl.runs.pictures import save
from icnn_rl.sets import Simplex
from icnn_rl.structured.classifier import classification_loss, vertex_energies
from icnn_rl.structured.losses import LossValue
from icnn_rl.structured.model import StructuredModel
from icnn_rl.structured.training import Objective, Row

Array = npt.NDArray[Any]
Classifier = FeedForward | PICNN | FICNN | ConvFICNN

CLASSES = 10
LENET = (Conv(20, 5), MaxPool(2), Conv(50, 5), MaxPool(2), Dense(500))
BATCH = 500  # images measured in one pass


def cross_entropy(net: nn.Module, x: Tensor, y: Tensor, start: Tensor | None = None) -> LossValue:
    """The loss of a softmax for targets y on the simplex."""
    return LossValue(F.cross_entropy(net(x), y, reduction="none"), None, 1.0, 0.0)


class Classification(Supervised):
    """Networks of every convexity asked for, on the same images.

    Args:
        config: of the experiment.
        train: images ``(N, height, width)`` with entries in [0, 1], and their digits ``(N,)``.
        test: likewise.
        lenet: whether the networks are convolutional.
    """

    def __init__(
        self,
        config: FitConfig,
        train: tuple[Array, Array],
        test: tuple[Array, Array],
        lenet: bool = False,
    ) -> None:
        self.lenet = lenet
        self.image = train[0].shape[1:]
        self.shape = (1, *self.image) if lenet else (prod(self.image),)
        self.scores: dict[str, Callable[[Tensor], Tensor]] = {}
        mean, deviation = (train[0].mean(), train[0].std()) if config.standardize else (0.0, 1.0)

        def tensors(images: Array, digits: Array) -> tuple[Tensor, Tensor]:
            x = torch.as_tensor((images - mean) / deviation, dtype=torch.float32)
            y = torch.eye(CLASSES)[torch.as_tensor(digits, dtype=torch.int64)]
            return x.view(-1, *self.shape), y

        super().__init__(config, tensors(*train), tensors(*test))

    def measure(self) -> Mapping[str, Row]:
        """Errors, and for convex networks the errors and gaps of the minima over the simplex."""
        return {name: self._measure(name, part.net) for name, part in self.parts.items()}

    def draw(self, folder: Path) -> Mapping[str, Path]:
        """The test images that each network finds hardest."""
        names = {name: f"hardest-{name}" for name in self.parts}
        return {
            picture: self._draw_hardest(name, folder / f"{picture}.png")
            for name, picture in names.items()
        }

    def _network(self, name: str) -> Classifier:
        network = self.config.network
        context, convex = (
            LENET if self.lenet else [Dense(width) for width in widths]
            for widths in (network.context, network.convex)
        )
        activation, dropout = network.activation, network.dropout
        if name == "full":
            # The layers before compute features of x alone.
            return ConvFICNN(
                self.shape,
                (CLASSES,),
                convex,
                activation,
                y_from=-1,
                norm="batch",
                dropout=dropout,
            )
        encoder = Encoder(self.shape, context, dropout, norm="batch")
        if name == "none":
            return FeedForward(encoder, nn.Linear(encoder.width, CLASSES))
        return PICNN(encoder.width, CLASSES, (), network.convex, activation, encoder=encoder)

    def _objective(self, name: str, net: nn.Module) -> Objective:
        if isinstance(net, FeedForward):
            self.scores[name] = net
            return partial(cross_entropy, net)
        self.require_hessian(net, name)
        assert isinstance(net, PICNN | FICNN | ConvFICNN)
        model = self.models[name] = StructuredModel(net, Simplex())
        self.scores[name] = lambda x: -vertex_energies(model, x)
        return partial(classification_loss(self.config.loss, CLASSES, self.config.device), model)

    def _validate(self, name: str) -> Row:
        return {"score": 1 - self._error(name, self.x_val, self.y_val)}

    @torch.no_grad()
    def _scores(self, name: str, x: Tensor) -> Tensor:
        return torch.cat([self.scores[name](rows) for rows in x.split(BATCH)])

    def _error(self, name: str, x: Tensor, y: Tensor) -> float:
        mistaken = self._scores(name, x).argmax(1) != y.argmax(1)
        return mistaken.double().mean().item()

    def _measure(self, name: str, net: nn.Module) -> Row:
        row = {
            "test error": self._error(name, self.x_test, self.y_test),
            "training error": self._error(name, self.x, self.y),
            "parameters": float(sum(p.numel() for p in net.parameters())),
        }
        if name in self.models:
            solution = self.models[name].infer(self.x_test, batch_size=BATCH)
            mistaken = solution.y.argmax(1) != self.y_test.argmax(1)
            row |= {
                "test error, simplex": mistaken.double().mean().item(),
            } | certificate(solution)
        return row

    def _draw_hardest(self, name: str, path: Path) -> Path:
        scores, truth = self._scores(name, self.x_test), self.y_test.argmax(1)
        of_truth = scores.gather(1, truth[:, None]).squeeze(1)
        rivals = scores.scatter(1, truth[:, None], -torch.inf)
        margin = of_truth - rivals.amax(1)
        hardest = margin.argsort()[:24]
        images = self.x_test[hardest].view(-1, *self.image)
        rows = [("", line) for line in images.split(8)]
        figure, grid = image_grid(rows, (8.8, 3.9), cmap="gray_r")
        for axes, k in zip(grid.flat, hardest, strict=True):
            axes.set_title(f"{truth[k].item()} as {rivals[k].argmax().item()}", fontsize="small")
        figure.suptitle(f"hardest of the test images, convexity: {name}", fontsize="medium")
        return save(figure, path)


class Digits(Classification):
    """The 8 × 8 digits that scikit-learn ships: 1297 to train on, the last 500 to test on."""

    unused = ("data",)

    def __init__(self, config: FitConfig) -> None:
        images, digits = load_digits(return_X_y=True)
        images = images.reshape(-1, 8, 8) / 16
        super().__init__(config, (images[:-500], digits[:-500]), (images[-500:], digits[-500:]))


class MNIST(Classification):
    """MNIST, dense."""

    def __init__(self, config: FitConfig, lenet: bool = False) -> None:
        data = load_mnist(config.data)
        train, test = (data.x_train / 255, data.y_train), (data.x_test / 255, data.y_test)
        super().__init__(config, train, test, lenet)


class ConvolutionalMNIST(MNIST):
    """MNIST, with networks of LeNet's layers."""

    unused = ("network.context",)

    def __init__(self, config: FitConfig) -> None:
        super().__init__(config, lenet=True)
