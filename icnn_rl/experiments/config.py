"""The configuration of ``icnn-rl fit``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from icnn_rl.runs.configuration import require_at_least
from icnn_rl.structured.training import TrainingOptions

Convexity = Literal["partial", "full", "none"]


@dataclass(frozen=True)
class FitNetworkConfig:
    """The networks.

    Args:
        context: widths of the path on x, where it need not be convex.
        convex: widths of the convex path.
        activation: of the convex path.
        dropout: share of the hidden units that training leaves out at random.
    """

    context: tuple[int, ...] = (200, 200)
    convex: tuple[int, ...] = (200,)
    activation: str = "relu"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require_at_least(0, "network.", self, "dropout")


@dataclass(frozen=True)
class FitTrainingConfig(TrainingOptions):
    """How to train.

    Args:
        validation: share of the training data that is set aside to end with the best epoch.
        **: the others as for ``TrainingOptions``.
    """

    validation: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(0, "training.", self, "validation")


@dataclass(frozen=True)
class FitConfig:
    """A structured fit.

    Args:
        experiment: what is learned from what.
        convexity: the networks to train, one after the other: ``partial`` for convex in y,
            ``full`` for convex in x and y, ``none`` for the feed-forward network to compare with.
        loss: what is minimised.
        network: the networks.
        training: how to train.
        standardize: whether images have mean 0 and variance 1; otherwise entries are in [0, 1].
        data: folder or archive of the data; null for the cache, to which it is downloaded once.
        seed: of every random generator.
        threads: of PyTorch.
        device: where the networks live.
        track: whether metrics go to Weights & Biases, offline without a login.
    """

    experiment: str = "digits"
    convexity: tuple[Convexity, ...] = ("partial",)
    loss: str = "max_margin"
    network: FitNetworkConfig = field(default_factory=FitNetworkConfig)
    training: FitTrainingConfig = field(default_factory=FitTrainingConfig)
    standardize: bool = True
    data: str | None = None
    seed: int = 0
    threads: int = 1
    device: str = "cpu"
    track: bool = False

    def __post_init__(self) -> None:
        require_at_least(0, "", self, "seed")
        require_at_least(1, "", self, "threads")
        if not self.convexity:
            raise ValueError("convexity has to name at least one of partial, full and none")
