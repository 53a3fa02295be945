"""An update of the networks as one CUDA graph: recorded once, from then on launched as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from torch import Tensor

from icnn_rl import Solution
from icnn_rl.solvers.problem import capturing

WARM_UP = 3  # updates before the one that is recorded, as PyTorch asks for

Update = tuple[Tensor, list[Solution]]
"""The loss of an update, and how its argmins were found."""


class CapturedUpdate:
    """An update of networks as one graph, from the argmins of the target to the optimiser's step.

    A graph knows no numbers but those of its recording. So a batch is copied to where the graph
    reads it, and with it the learning rate, which may follow a schedule; results are copied from
    where it writes them. The first updates are made as they are, on the stream of the recording,
    so that libraries and the optimiser have made what they need. Outside of an update the
    optimiser is as it would be without a graph.

    Args:
        update: makes an update of a batch; it does not wait for the device while that records.
        optimizer: Adam or AdamW, fused.
        settings: what else the update depends on.

    Source: PyTorch, "CUDA semantics", section on CUDA graphs.
    """

    def __init__(
        self,
        update: Callable[[ReplayBufferSamples], Update],
        optimizer: torch.optim.Optimizer,
        settings: tuple[object, ...],
    ) -> None:
        self._update, self._optimizer, self._settings = update, optimizer, settings
        self._state = optimizer.state
        self._batch: ReplayBufferSamples | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._calls = 0

    def fits(self, batch: ReplayBufferSamples, settings: tuple[object, ...]) -> bool:
        """Whether a recording would be of the same update."""
        # Loading an optimiser's state puts other tensors in the place of those recorded.
        known = self._optimizer.state is self._state and self._settings == settings
        return known and (self._batch is None or _forms(batch) == _forms(self._batch))

    def __call__(self, batch: ReplayBufferSamples) -> Update:
        """Make an update."""
        self.fill(batch)
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
        loss, solutions = self._outcome
        copies = [{k: t.clone() for k, t in vars(solution).items()} for solution in solutions]
        return loss.clone(), [Solution(**copy) for copy in copies]

    def fill(self, batch: ReplayBufferSamples) -> None:
        """Copy a batch and the learning rate to where the update reads them."""
        if self._batch is None:
            kept = (None if t is None else t.clone() for t in batch)
            self._batch = ReplayBufferSamples(*kept)  # type: ignore[arg-type]
            self._rate = torch.zeros((), device=batch.rewards.device)
        for static, given in zip(self._batch, batch, strict=True):
            if static is not None and given is not None:
                static.copy_(given)
        self._rate.fill_(self._optimizer.param_groups[0]["lr"])

    def run(self) -> Update:
        """Make an update of what was copied, without a graph."""
        assert self._batch is not None
        with _rate_from(self._rate, self._optimizer):
            return self._update(self._batch)

    def _warm_up(self) -> Update:
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            outcome = self.run()
        current.wait_stream(self._stream)
        return outcome


def _forms(batch: ReplayBufferSamples) -> list[object]:
    return [None if t is None else (t.shape, t.dtype, t.device) for t in batch]


@contextmanager
def _rate_from(rate: Tensor, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Within, the optimiser reads its learning rate from a tensor, and may be recorded."""
    groups = optimizer.param_groups
    kept = [(group["lr"], group["capturable"]) for group in groups]
    for group in groups:
        # Only while something is recorded: otherwise the optimiser warns of what it costs.
        group["lr"], group["capturable"] = rate, capturing(rate)
    try:
        yield
    finally:
        for group, (lr, capturable) in zip(groups, kept, strict=True):
            group["lr"], group["capturable"] = lr, capturable
