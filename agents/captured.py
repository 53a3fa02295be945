"""An update of the networks as one CUDA graph: recorded once, from then on launched as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from stable_baselines3.common.torch_layers import FlattenExtractor, NatureCNN
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from torch import Tensor

from icnn_rl import PICNN, Solution
from icnn_rl.solvers import solved_on_device
from icnn_rl.solvers.problem import capturing

if TYPE_CHECKING:
    from icnn_rl.agents.concave_q import ConcaveQ

WARM_UP = 3  # updates before the recording, as PyTorch asks for

Update = tuple[Tensor, list[Solution]]
"""The loss of an update, and how its argmins were found."""


class CapturedUpdate:
    """The update of an agent as one graph, from the argmins of the target to the optimiser's step.

    A graph reads and writes the memory of its recording. So a batch and the learning rate, which
    may follow a schedule, are copied there, and results from there. The first updates are made
    without a graph, on the stream of the recording, so that libraries and the optimiser allocate
    what they need. Updates that a graph cannot hold are made without one.

    Args:
        model: the agent.

    Source: PyTorch, "CUDA semantics", section on CUDA graphs.
    """

    def __init__(self, model: ConcaveQ) -> None:
        self._model = model
        self._optimizer = model.critic.optimizer
        self.reset()

    def reset(self) -> None:
        """Forget the recording."""
        self._settings = self._current_settings()
        self._optimizer_state = self._optimizer.state
        self._batch: ReplayBufferSamples | None = None
        self.graph: torch.cuda.CUDAGraph | None = None
        self._calls = 0

    def __call__(self, batch: ReplayBufferSamples) -> Update:
        """Make an update."""
        if not self.possible(batch):
            return self._model._update(batch)
        if not self.fits(batch):
            self.reset()
        self.fill(batch)
        self._calls += 1
        if self._calls == 1:
            self._stream = torch.cuda.Stream()
        if self._calls <= WARM_UP:
            current = torch.cuda.current_stream()
            self._stream.wait_stream(current)
            with torch.cuda.stream(self._stream):
                outcome = self.run()
            current.wait_stream(self._stream)
            return outcome
        if self.graph is None:
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, stream=self._stream):
                self._outcome = self.run()
        self.graph.replay()
        loss, solutions = self._outcome
        copies = [{k: t.clone() for k, t in vars(solution).items()} for solution in solutions]
        return loss.clone(), [Solution(**copy) for copy in copies]

    def possible(self, batch: ReplayBufferSamples) -> bool:
        """Whether argmins, losses and steps are work that a CUDA graph can hold."""
        model, critic = self._model, self._model.critic
        return (
            model.device.type == "cuda"
            and model.action_set is None
            and model.solver.name == "auto"
            and solved_on_device(critic.dim, len(batch.rewards))
            and critic.modes == 1
            and isinstance(critic.net, PICNN)
            and not critic.net.path.activation.piecewise_linear
            # Other extractors may read numbers from the device, which a graph cannot.
            and type(critic.features_extractor) in (FlattenExtractor, NatureCNN)
            and isinstance(self._optimizer, (torch.optim.Adam, torch.optim.AdamW))
            and bool(self._optimizer.defaults["fused"])
        )

    def fits(self, batch: ReplayBufferSamples) -> bool:
        """Whether a recording would be of the same update."""
        # Loading an optimiser's state replaces the recorded tensors by others.
        same = self._optimizer.state is self._optimizer_state
        same = same and self._settings == self._current_settings()
        return same and (self._batch is None or _forms(batch) == _forms(self._batch))

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
            return self._model._update(self._batch)

    def _current_settings(self) -> tuple[object, ...]:
        model = self._model
        weights = (model.gamma, model.tau, model.td_clip, model.action_l2, model.entropy)
        return (*weights, model.target_noise, model.target_noise_clip, model.solver)


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
