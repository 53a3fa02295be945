"""CUDA graphs: work that is recorded once, and from then on launched as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Generic, TypeVar

import torch
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from torch import Tensor

from icnn_rl import Solution
from icnn_rl.solvers.problem import capturing

WARM_UP = 3  # calls before the one that is recorded, as PyTorch asks for

Outcome = TypeVar("Outcome")
Update = tuple[Tensor, list[Solution]]
"""The loss of an update, and how its argmins were found."""


class Captured(Generic[Outcome]):
    """A function of CUDA tensors, recorded as a graph and replayed on other inputs.

    The first calls are made as they are, on the stream of the recording, so that libraries and
    optimisers have made what they need; the next one is recorded. Inputs are copied to where the
    graph reads, and results from where it writes.

    Args:
        function: does not wait for the device while the device records.
        clone: copies a result.

    Source: PyTorch, "CUDA semantics", section on CUDA graphs.
    """

    def __init__(
        self, function: Callable[..., Outcome], clone: Callable[[Outcome], Outcome]
    ) -> None:
        self._function, self._clone = function, clone
        self._inputs: tuple[Tensor | None, ...] = ()
        self._graph: torch.cuda.CUDAGraph | None = None
        self._calls = 0

    def fits(self, *inputs: Tensor | None) -> bool:
        """Whether inputs may follow those of the first call."""
        return not self._inputs or [_form(t) for t in inputs] == [_form(t) for t in self._inputs]

    def __call__(self, *inputs: Tensor | None) -> Outcome:
        """The function of the inputs."""
        self.fill(*inputs)
        self._calls += 1
        if self._calls == 1:
            self._stream = torch.cuda.Stream()
        if self._calls <= WARM_UP:
            return self._warm_up()
        if self._graph is None:
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=self._stream):
                self._outcome = self.run()
        self._graph.replay()
        return self._clone(self._outcome)

    def fill(self, *inputs: Tensor | None) -> None:
        """Copy inputs to where the function reads them."""
        if not self._inputs:
            self._inputs = tuple(None if t is None else t.clone() for t in inputs)
            return
        for kept, given in zip(self._inputs, inputs, strict=True):
            if kept is not None and given is not None:
                kept.copy_(given)

    def run(self) -> Outcome:
        """The function of what was copied, computed at once."""
        return self._function(*self._inputs)

    def _warm_up(self) -> Outcome:
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            outcome = self.run()
        current.wait_stream(self._stream)
        return outcome


def _form(t: Tensor | None) -> object:
    return None if t is None else (t.shape, t.dtype, t.device)


class CapturedUpdate:
    """An update of networks as one graph, from the argmins of the target to the optimiser's step.

    A graph knows no numbers but those of its recording. So the learning rate, which may follow a
    schedule, is an input like the batch. Outside of an update the optimiser is as without a graph.

    Args:
        update: makes an update of a batch.
        optimizer: Adam or AdamW, fused.
        settings: what else the update depends on.

    Attributes:
        captured: the update as a function of ``inputs``.
    """

    def __init__(
        self,
        update: Callable[[ReplayBufferSamples], Update],
        optimizer: torch.optim.Optimizer,
        settings: tuple[object, ...],
    ) -> None:
        def step(rate: Tensor, *batch: Tensor) -> Update:
            with _rate_from(rate, optimizer):
                return update(ReplayBufferSamples(*batch))

        self.captured = Captured(step, clone_update)
        self._optimizer, self._state, self._settings = optimizer, optimizer.state, settings

    def fits(self, batch: ReplayBufferSamples, settings: tuple[object, ...]) -> bool:
        """Whether a recording made before would be of the same update."""
        # Loading an optimiser's state puts other tensors in the place of those recorded.
        known = self._optimizer.state is self._state and self._settings == settings
        return known and self.captured.fits(*self.inputs(batch))

    def inputs(self, batch: ReplayBufferSamples) -> tuple[Tensor | None, ...]:
        """The learning rate and the batch."""
        rate = self._optimizer.param_groups[0]["lr"]
        return torch.full((), rate, device=batch.rewards.device), *batch

    def __call__(self, batch: ReplayBufferSamples) -> Update:
        """Make an update."""
        return self.captured(*self.inputs(batch))


@contextmanager
def _rate_from(rate: Tensor, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Within, the optimiser reads its learning rate from a tensor, and may be recorded."""
    groups = optimizer.param_groups
    kept = [(group["lr"], group["capturable"]) for group in groups]
    for group in groups:
        # Where nothing is recorded the optimiser would warn of what this costs.
        group["lr"], group["capturable"] = rate, capturing(rate)
    try:
        yield
    finally:
        for group, (lr, capturable) in zip(groups, kept, strict=True):
            group["lr"], group["capturable"] = lr, capturable


def clone_update(update: Update) -> Update:
    """The same numbers in memory of their own."""
    loss, solutions = update
    return loss.clone(), [clone_solution(solution) for solution in solutions]


def clone_solution(solution: Solution) -> Solution:
    """The same numbers in memory of their own."""
    return Solution(*(getattr(solution, field.name).clone() for field in fields(solution)))
