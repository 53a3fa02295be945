"""The training loop: minibatches, warm starts, validation, early stopping, exact resume."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from icnn_rl.runs.process import random_state, set_random_state
from icnn_rl.runs.storage import brief
from icnn_rl.structured.losses import LossValue

State = dict[str, Any]
Row = dict[str, float]


class Objective(Protocol):
    """The loss of a minibatch x, y, given points to start the solver from."""

    def __call__(self, x: Tensor, y: Tensor, start: Tensor | None, /) -> LossValue: ...


@dataclass(frozen=True)
class TrainingOptions:
    """How to train.

    Args:
        epochs: passes over the data, at most.
        batch_size: samples per step, at most; the minibatches of an epoch are of nearly one size.
        learning_rate: of AdamW, at first; a cosine lowers it to 0 over all epochs.
        weight_decay: of AdamW.
        patience: epochs without a better validation score after which training ends; None (null)
            for never.

    Raises:
        ValueError: a number is out of its range.
    """

    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    patience: int | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected a number >= 1, got {getattr(self, name)}")
        rate, decay = self.learning_rate, self.weight_decay
        if not 0 < rate < math.inf:
            raise ValueError(f"learning_rate: expected a finite number > 0, got {rate}")
        if not 0 <= decay < math.inf:
            raise ValueError(f"weight_decay: expected a finite number >= 0, got {decay}")
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience: expected None or a number >= 1, got {self.patience}")


class Trainer:
    """Stochastic subgradient descent on a loss, with the projection P₊ after every step.

        θ ← P₊(θ - η (∂/∂θ 1/B Σᵢ Lᵢ + λ θ))

    The solver starts from a sample's answer of the epoch before, where the loss returns answers.
    With a validation score, the network ends as it was when the score was best.

    Args:
        net: the network, with a method ``project_``.
        objective: the loss.
        x: inputs, ``(N, …)``.
        y: targets, ``(N, n)``.
        options: how to train.
        validate: measures the network after an epoch; its ``score`` counts, the higher the better.
        seed: of the order of the samples.

    Attributes:
        history: a row of numbers for every epoch.
        epoch: epochs done.

    Source: Amos & Kolter, "Input-Convex Deep Networks", ICLR workshop 2016, "ICNN learning".
    """

    def __init__(
        self,
        net: nn.Module,
        objective: Objective,
        x: Tensor,
        y: Tensor,
        options: TrainingOptions,
        validate: Callable[[], Row] | None = None,
        seed: int = 0,
    ) -> None:
        if len(x) != len(y):
            raise ValueError(f"x, y: expected as many targets as inputs, got {len(x)} and {len(y)}")
        if not len(x):
            raise ValueError("x, y: expected at least one sample, got none")
        self.net = net
        self.objective = objective
        self.x, self.y = x, y
        self.options = options
        self.validate = validate
        self.optimizer = AdamW(
            net.parameters(), options.learning_rate, weight_decay=options.weight_decay
        )
        self.order = torch.Generator().manual_seed(seed)
        self.history: list[Row] = []
        self.epoch = 0
        self.best_epoch = 0
        self.best = deepcopy(net.state_dict())
        self.answers: Tensor | None = None
        self._rows: list[Tensor] = []  # the minibatches left of this epoch
        self._sums = [0.0] * 3
        self._seconds = 0.0

    @property
    def steps(self) -> int:
        """Minibatches of all epochs."""
        return self.options.epochs * self._per_epoch

    @property
    def step(self) -> int:
        """Minibatches done."""
        return self.epoch * self._per_epoch + self._position

    @property
    def done(self) -> bool:
        """Whether training has ended."""
        return self.epoch >= self.options.epochs or self.stopped

    @property
    def stopped(self) -> bool:
        """Whether patience has ended training."""
        patience = self.options.patience
        if patience is None or self.validate is None:
            return False
        return self.epoch - self.best_epoch >= patience

    @property
    def _per_epoch(self) -> int:
        return math.ceil(len(self.x) / self.options.batch_size)

    @property
    def _position(self) -> int:
        return self._per_epoch - len(self._rows) if self._rows else 0

    def run(self) -> Iterator[Row | None]:
        """Train to the end: None after a step, a row of the history after an epoch.

        Raises:
            FloatingPointError: the loss, a weight or an energy is not finite; the network gets
                its best weights back.
        """
        while not self.done:
            start, epoch = time.perf_counter(), self.epoch + 1
            if not self._rows:
                self._rows = self._shuffled()
            try:
                self._step(self._rows[0])
                self._rows.pop(0)
                self._seconds += time.perf_counter() - start
                row = None if self._rows else self._close_epoch()
            except FloatingPointError as error:
                self.net.load_state_dict(self.best)
                raise FloatingPointError(
                    f"training diverged in epoch {epoch}: {error}. Try a learning rate below "
                    f"{self.options.learning_rate:g}"
                ) from None
            yield row
        self.net.load_state_dict(self.best)
        self.net.eval()

    def state(self) -> State:
        """Everything needed to continue as if training had not stopped."""
        state = {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "order": self.order.get_state(),
            "random": random_state(),
            "rows": self._rows,
            "answers": self.answers,
            "sums": self._sums,
            "seconds": self._seconds,
            "epoch": self.epoch,
            "best_epoch": self.best_epoch,
            "best": self.best,
            "history": self.history,
        }
        return deepcopy(state)  # training changes most of it in place

    def restore(self, state: State) -> None:
        """Continue from a state.

        Raises:
            ValueError: the state is of another network.
        """
        state = deepcopy(state)
        try:
            self.net.load_state_dict(state["best"])
            self.net.load_state_dict(state["net"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.order.set_state(state["order"])
            set_random_state(state["random"])
            device, answers = self.x.device, state["answers"]
            self._rows = [rows.to(device) for rows in state["rows"]]
            self.answers = None if answers is None else answers.to(device)
            self._sums, self._seconds = state["sums"], state["seconds"]
            self.epoch, self.history = state["epoch"], state["history"]
            self.best_epoch, self.best = state["best_epoch"], state["best"]
        except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"the checkpoint does not fit the network: {brief(error)}") from None

    def _step(self, rows: Tensor) -> None:
        self.net.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        start = None if self.answers is None else self.answers[rows]
        loss = self.objective(self.x[rows], self.y[rows], start)
        mean = loss.value.mean()
        if not math.isfinite(mean.item()):
            raise FloatingPointError(f"the loss is {mean.item()}")
        if mean.requires_grad:  # false where every margin holds
            self.optimizer.zero_grad()
            mean.backward()
            self.optimizer.step()
            self.net.project_()  # type: ignore[operator]
        if loss.answer is not None:
            if self.answers is None:
                self.answers = self.y.to(loss.answer.dtype, copy=True)
            self.answers[rows] = loss.answer
        share = len(rows) / len(self.x)
        for k, t in enumerate((mean.item(), loss.active, loss.evaluations)):
            self._sums[k] += share * t

    def _close_epoch(self) -> Row:
        if not all(bool(p.isfinite().all()) for p in self.net.parameters()):
            raise FloatingPointError("a weight is not finite")
        self.epoch += 1
        self.net.eval()
        names = ("loss", "active", "evaluations")
        row: Row = {"epoch": self.epoch} | dict(zip(names, self._sums, strict=True))
        row |= {"learning_rate": self._learning_rate(), "seconds": self._seconds}
        self._sums, self._seconds = [0.0] * len(self._sums), 0.0
        if self.validate is not None:
            row |= self.validate()
        best = [other["score"] for other in self.history if "score" in other]
        if self.validate is None or row["score"] > max(best, default=-math.inf):
            self.best_epoch, self.best = self.epoch, deepcopy(self.net.state_dict())
        self.history.append(row)
        return row

    def _shuffled(self) -> list[Tensor]:
        order = torch.randperm(len(self.x), generator=self.order).to(self.x.device)
        # Of nearly one size: batch normalisation cannot use a last minibatch of one sample.
        return list(order.tensor_split(self._per_epoch))

    def _learning_rate(self) -> float:
        share = self.step / self.steps
        return self.options.learning_rate * (1 + math.cos(math.pi * share)) / 2
