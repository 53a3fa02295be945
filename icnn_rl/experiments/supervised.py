"""What experiments with training, validation and test samples share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from icnn_rl.experiments.config import FitConfig
from icnn_rl.experiments.experiment import Experiment
from icnn_rl.structured.model import StructuredModel
from icnn_rl.structured.training import Objective, Row, Trainer

Samples = tuple[Tensor, Tensor]  # inputs and targets


class FeedForward(nn.Sequential):
    """A plain network, to compare a convex one with."""

    def project_(self) -> None:
        """No weight has a sign to keep."""


class Supervised(Experiment):
    """Networks of every convexity asked for, trained, validated and tested on the same samples.

    Args:
        config: of the experiment.
        train: the samples to learn from; a share of them is set aside for validation.
        test: the samples to measure on.

    Attributes:
        models: the convex networks and their sets, by part.
    """

    def __init__(self, config: FitConfig, train: Samples, test: Samples) -> None:
        super().__init__(config)
        x, y = (t.to(config.device) for t in train)
        self.x_test, self.y_test = (t.to(config.device) for t in test)
        generator = torch.Generator().manual_seed(config.seed)
        rows = torch.randperm(len(x), generator=generator).to(x.device)
        held_out = round(config.training.validation * len(x))
        (self.x_val, self.y_val), (self.x, self.y) = (
            (x[part], y[part]) for part in rows.tensor_split([held_out])
        )
        self.models: dict[str, StructuredModel] = {}
        self.parts = {name: self._trainer(name) for name in self._names()}

    def _names(self) -> Sequence[str]:
        """The names of the parts."""
        return self.config.convexity

    @abstractmethod
    def _network(self, name: str) -> nn.Module:
        """The network of a part."""

    @abstractmethod
    def _objective(self, name: str, net: nn.Module) -> Objective:
        """The loss of a part; a convex network enters ``models``."""

    @abstractmethod
    def _validate(self, name: str) -> Row:
        """The validation score of a part."""

    def _trainer(self, name: str) -> Trainer:
        net = self._network(name).to(self.config.device)
        objective = self._objective(name, net)

        def validate() -> Row:
            return self._validate(name)

        validation = validate if len(self.x_val) else None
        options, seed = self.config.training, self.config.seed
        return Trainer(net, objective, self.x, self.y, options, validation, seed)
