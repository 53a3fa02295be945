"""Digits by their class: dense and convolutional networks, on MNIST and on a set at hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Tensor, nn

from icnn_rl.data import load_mnist
from icnn_rl.experiments.baselines import FeedForward, cross_entropy
from icnn_rl.experiments.config import FitConfig
from icnn_rl.experiments.experiment import Experiment
from icnn_rl.networks import FICNN, PICNN, Conv, ConvFICNN, Dense, Encoder, MaxPool
from icnn_rl.runs.pictures import save
from icnn_rl.sets import Simplex
from icnn_rl.structured.classifier import classification_loss, vertex_energies
from icnn_rl.structured.model import StructuredModel
from icnn_rl.structured.training import Objective, Row, Trainer

Array = npt.NDArray[Any]
Classifier = FeedForward | PICNN | FICNN | ConvFICNN

CLASSES = 10
LENET = (Conv(20, 5), MaxPool(2), Conv(50, 5), MaxPool(2), Dense(500))
BATCH = 500  # images measured side by side
GRID = (3, 8)  # of the hardest images


class Classification(Experiment):
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
        super().__init__(config)
        self.lenet = lenet
        self.image = train[0].shape[1:]
        self.shape = (1, *self.image) if lenet else (prod(self.image),)
        self.moments = (train[0].mean(), train[0].std()) if config.standardize else (0.0, 1.0)
        x, y = self._tensors(*train)
        self.x_test, self.y_test = self._tensors(*test)
        generator = torch.Generator().manual_seed(config.seed)
        held_out = round(config.training.validation * len(x))
        rows = torch.randperm(len(x), generator=generator).to(x.device)
        (self.x_val, self.y_val), (self.x, self.y) = (
            (x[part], y[part]) for part in rows.tensor_split([held_out])
        )
        self.models: dict[str, StructuredModel] = {}
        self.scores: dict[str, Callable[[Tensor], Tensor]] = {}
        self.parts = {name: self._trainer(name) for name in self._names()}

    def measure(self) -> Mapping[str, Row]:
        """Errors, and for convex networks how the minimum over the simplex compares."""
        return {name: self._measure(name, part.net) for name, part in self.parts.items()}

    def draw(self, folder: Path) -> Mapping[str, Path]:
        """The test images that each network finds hardest."""
        names = {name: f"hardest-{name}" for name in self.parts}
        return {
            picture: self._draw_hardest(name, folder / f"{picture}.png")
            for name, picture in names.items()
        }

    def _names(self) -> Sequence[str]:
        """Of the parts."""
        return self.config.convexity

    def _tensors(self, images: Array, digits: Array) -> tuple[Tensor, Tensor]:
        device = self.config.device
        mean, deviation = self.moments
        x = torch.as_tensor((images - mean) / deviation, dtype=torch.float32).view(-1, *self.shape)
        y = torch.eye(CLASSES)[torch.as_tensor(digits, dtype=torch.int64)]
        return x.to(device), y.to(device)

    def _network(self, convexity: str) -> Classifier:
        network = self.config.network
        context, convex = (
            LENET if self.lenet else [Dense(width) for width in widths]
            for widths in (network.context, network.convex)
        )
        activation, dropout = network.activation, network.dropout
        if convexity == "full":
            # Features of x do without y: only the last layer has to know it.
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
        if convexity == "none":
            return FeedForward(encoder, CLASSES)
        return PICNN(encoder.width, CLASSES, (), network.convex, activation, encoder=encoder)

    def _trainer(self, convexity: str) -> Trainer:
        config = self.config
        net = self._network(convexity).to(config.device)
        objective: Objective
        if isinstance(net, FeedForward):
            objective, self.scores[convexity] = partial(cross_entropy, net), net
        else:
            self.require_hessian(net, convexity)
            model = self.models[convexity] = StructuredModel(net, Simplex())
            objective = partial(classification_loss(config.loss, CLASSES, config.device), model)
            self.scores[convexity] = lambda x: -vertex_energies(model, x)

        def validate() -> Row:
            return {"score": 1 - self._error(convexity, self.x_val, self.y_val)}

        held_out = validate if len(self.x_val) else None
        return Trainer(net, objective, self.x, self.y, self.options, held_out, config.seed)

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
                "largest gap": solution.gap.max().item(),
                "evaluations": solution.evaluations.double().mean().item(),
            }
        return row

    def _draw_hardest(self, name: str, path: Path) -> Path:
        scores, truth = self._scores(name, self.x_test), self.y_test.argmax(1)
        of_truth = scores.gather(1, truth[:, None]).squeeze(1)
        rivals = scores.scatter(1, truth[:, None], -torch.inf)
        margin = of_truth - rivals.amax(1)
        rows, columns = GRID
        figure = Figure(figsize=(1.1 * columns, 1.3 * rows), layout="constrained", dpi=150)
        for axes, k in zip(figure.subplots(*GRID).flat, margin.argsort(), strict=False):
            axes.imshow(self.x_test[k].cpu().view(self.image).numpy(), cmap="gray_r")
            axes.set_title(f"{truth[k].item()} as {rivals[k].argmax().item()}", fontsize="small")
            axes.set_axis_off()
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
