"""An experiment: networks to train, numbers to measure, pictures to draw."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor, nn

from icnn_rl.experiments.config import FitConfig
from icnn_rl.networks import FICNN, PICNN
from icnn_rl.solvers import Solution
from icnn_rl.structured.losses import mean_evaluations
from icnn_rl.structured.training import Row, Trainer

EXPERIMENTS = {
    "synthetic": "synthetic.Synthetic",
    "digits": "classification.Digits",
    "mnist": "classification.MNIST",
    "mnist-conv": "classification.ConvolutionalMNIST",
    "exemplars": "exemplars.Exemplars",
    "bibtex": "multi_label.BibTeX",
    "delicious": "multi_label.Delicious",
    "olivetti": "olivetti.Olivetti",
    "impute": "imputation.Imputation",
}


class Experiment(ABC):
    """One experiment, its data loaded and its networks drawn.

    Attributes:
        config: its configuration.
        parts: trainers by name, which run one after the other.
        unused: keys of the configuration, dotted, that have no effect.
    """

    unused: ClassVar[tuple[str, ...]] = ()
    parts: Mapping[str, Trainer]

    def __init__(self, config: FitConfig) -> None:
        self.config = config

    def require_hessian(self, net: nn.Module, convexity: str) -> None:
        """Refuse implicit differentiation of an energy with kinks.

        Raises:
            ValueError: ``loss`` is ``"implicit"``, and the energy has kinks.
        """
        smooth = isinstance(net, FICNN | PICNN) and not net.path.activation.piecewise_linear
        if self.config.loss == "implicit" and not smooth:
            raise ValueError(
                "loss: expected another than 'implicit', which takes energies without kinks; the "
                f"{convexity} network of {self.config.experiment} has some with "
                f"network.activation {self.config.network.activation!r}"
            )

    @abstractmethod
    def measure(self) -> Mapping[str, Row]:
        """Numbers on the test data, a row for each part and each method to compare with."""

    @abstractmethod
    def draw(self, folder: Path) -> Mapping[str, Path]:
        """Pictures for people to judge by, written into a folder; their paths by name."""


def certificate(solution: Solution) -> Row:
    """How good a batch of answers is proven to be, and at what cost."""
    return {
        "largest gap": solution.gap.max().item(),
        "evaluations": mean_evaluations(solution),
    }


def image_grid(
    rows: Sequence[tuple[str, Tensor]], size: tuple[float, float], **options: Any
) -> tuple[Figure, np.ndarray]:
    """A figure with a row of images for each label, and its axes.

    Args:
        rows: labels and images, ``(K, height, width)``.
        size: width and height of the figure, in inches.
        options: of ``imshow``.
    """
    figure = Figure(figsize=size, layout="constrained", dpi=150)
    grid = figure.subplots(len(rows), len(rows[0][1]), squeeze=False)
    for line, (label, images) in zip(grid, rows, strict=True):
        for axes, image in zip(line, images.cpu().numpy(), strict=True):
            axes.imshow(image, **options)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        line[0].set_ylabel(label, rotation=0, ha="right", va="center")
    return figure, grid


def build(config: FitConfig) -> Experiment:
    """The experiment that a configuration names.

    Raises:
        ValueError: there is none of that name, or a value is wrong for it.
        OSError: its data cannot be found.
    """
    if config.experiment not in EXPERIMENTS:
        raise ValueError(
            f"experiment: expected one of {', '.join(EXPERIMENTS)}; got {config.experiment!r}"
        )
    module, name = EXPERIMENTS[config.experiment].split(".")
    # Imported when needed: each needs other libraries.
    kind: type[Experiment] = getattr(import_module(f"icnn_rl.experiments.{module}"), name)
    for key in kind.unused:
        given, default = (attrgetter(key)(c) for c in (config, FitConfig()))
        if given != default:
            raise ValueError(
                f"{key}: {config.experiment} does not use it, expected it to be left alone, "
                f"got {given}"
            )
    return kind(config)
