"""The training loop: reproducible, resumable at any step, safe when it diverges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import islice

import pytest
import torch
from torch import Tensor

from icnn_rl.networks import PICNN
from icnn_rl.sets import Box, Simplex
from icnn_rl.structured.losses import Hamming, LossValue, MaxMargin, SquaredError
from icnn_rl.structured.model import StructuredModel
from icnn_rl.structured.training import Row, Trainer, TrainingOptions

SAMPLES, INPUTS = 40, 4
OPTIONS = TrainingOptions(epochs=4, batch_size=16, learning_rate=1e-2, weight_decay=1e-2)


def problem() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(SAMPLES, INPUTS, generator=generator)
    return x, torch.stack([x[:, 0].sin(), x[:, 1] * x[:, 2]], -1).clamp(-1, 1)


def trainer(
    options: TrainingOptions = OPTIONS, validate: Callable[[], Row] | None = None, seed: int = 0
) -> Trainer:
    torch.manual_seed(seed)
    net = PICNN(INPUTS, 2, (8,), (8, 8))
    model = StructuredModel(net, Box(-2.0, 2.0), 1.0, tol=1e-5)
    objective = partial(MaxMargin(SquaredError(0.5)), model)
    return Trainer(net, objective, *problem(), options, validate, seed)


def weights(trainer: Trainer) -> Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.net.parameters()])


def finish(trainer: Trainer) -> Tensor:
    for _ in trainer.run():
        pass
    return weights(trainer)


def test_training_lowers_the_loss_and_is_reproducible() -> None:
    first, again, other = trainer(), trainer(), trainer(seed=1)
    assert torch.equal(finish(first), finish(again))
    assert not torch.equal(weights(first), finish(other))
    losses = [row["loss"] for row in first.history]
    assert len(losses) == 4
    assert losses[-1] < 0.9 * losses[0]
    assert [row["loss"] for row in again.history] == losses


@pytest.mark.parametrize("steps", [1, 3, 7, 11])  # three steps make an epoch
def test_a_restored_state_goes_on_bit_for_bit(steps: int) -> None:
    expected = finish(trainer())
    stopped = trainer()
    list(islice(stopped.run(), steps))
    state = stopped.state()
    finish(stopped)  # does not change the state that was taken
    for _ in range(2):  # nor does going on from it
        resumed = trainer(seed=3)
        resumed.restore(state)
        assert resumed.step == steps
        assert torch.equal(finish(resumed), expected)


def test_no_minibatch_is_much_smaller_than_the_others() -> None:
    sizes: list[int] = []
    one = trainer(replace(OPTIONS, epochs=1, batch_size=13))  # 40 = 3 · 13 + 1
    objective = one.objective

    def counted(x: Tensor, y: Tensor, start: Tensor | None) -> LossValue:
        sizes.append(len(x))
        return objective(x, y, start)

    one.objective = counted
    finish(one)
    assert sizes == [10, 10, 10, 10]


def test_a_state_of_another_network_is_refused() -> None:
    net = PICNN(INPUTS, 2, (8,), (4,))
    other = Trainer(net, trainer().objective, *problem(), OPTIONS)
    with pytest.raises(ValueError, match="the checkpoint does not fit the network"):
        other.restore(trainer().state())


def test_the_signs_are_kept_after_every_step() -> None:
    t = trainer(TrainingOptions(epochs=2, batch_size=8, learning_rate=0.1))
    net = t.net
    assert isinstance(net, PICNN)
    for _ in t.run():
        assert min(w.min().item() for w in net.path.weight_z()) >= 0
    assert any(bool((w == 0).any()) for w in net.path.weight_z())  # they would have crossed


def test_training_ends_early_with_the_best_epoch() -> None:
    scores = iter([0.1, 0.5, 0.3, 0.2, 0.9])
    seen: list[Tensor] = []

    def validate() -> Row:
        seen.append(weights(t))
        return {"score": next(scores)}

    t = trainer(TrainingOptions(epochs=5, batch_size=16, patience=2), validate)
    assert torch.equal(finish(t), seen[1])
    assert (t.epoch, t.best_epoch, t.done) == (4, 2, True)
    assert not t.net.training


def test_a_loss_that_is_not_finite_puts_the_network_back() -> None:
    t = trainer()
    exact = t.objective

    def objective(x: Tensor, y: Tensor, start: Tensor | None) -> LossValue:
        loss = exact(x, y, start)
        return loss._replace(value=loss.value * torch.nan) if t.step == 4 else loss

    t.objective = objective
    steps = t.run()
    list(islice(steps, 3))
    after_an_epoch = weights(t)
    with pytest.raises(FloatingPointError, match="diverged in epoch 2: the loss is nan"):
        list(steps)
    assert torch.equal(weights(t), after_an_epoch)


@pytest.mark.parametrize("last_of_epoch", [False, True])
def test_weights_that_are_not_finite_put_the_network_back(last_of_epoch: bool) -> None:
    t = trainer()
    step, wrong = t.optimizer.step, 2 if last_of_epoch else 1

    def diverging_step() -> None:
        step()
        if t.step == wrong:
            with torch.no_grad():
                next(t.net.parameters()).fill_(torch.inf)

    t.optimizer.step = diverging_step  # type: ignore[method-assign, assignment]
    before = weights(t)
    with pytest.raises(FloatingPointError, match="training diverged in epoch 1"):
        finish(t)
    assert torch.equal(weights(t), before)


def test_warm_starts_save_evaluations() -> None:
    warm, cold = (trainer(TrainingOptions(epochs=6, batch_size=16)) for _ in range(2))
    objective = cold.objective
    cold.objective = lambda x, y, start: objective(x, y, None)
    for run in (warm, cold):
        finish(run)
    evaluations = [sum(row["evaluations"] for row in run.history) for run in (warm, cold)]
    assert evaluations[0] < evaluations[1]


def test_a_loss_that_takes_no_start_has_no_answers_kept() -> None:
    t = trainer(replace(OPTIONS, epochs=1))
    objective = t.objective

    def without(x: Tensor, y: Tensor, start: Tensor | None) -> LossValue:
        assert start is None
        return objective(x, y, start)._replace(answer=None)

    t.objective = without
    finish(t)
    assert t.state()["answers"] is None


def test_samples_whose_margin_holds_are_not_active() -> None:
    x = torch.cat([torch.ones(20, 1), -torch.ones(20, 1)])
    y = torch.cat([torch.tensor([[1.0, 0.0]]).expand(20, -1), torch.tensor([[0.0, 1.0]])[[0] * 20]])
    torch.manual_seed(0)
    net = PICNN(1, 2, (8,), (8,), "relu")
    objective = partial(MaxMargin(Hamming(0.5)), StructuredModel(net, Simplex()))
    t = Trainer(net, objective, x, y, TrainingOptions(epochs=15, batch_size=10, learning_rate=1e-2))
    finish(t)
    last = t.history[-1]
    assert (last["loss"], last["active"], last["evaluations"]) == pytest.approx((0.0, 0.0, 1.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs: expected a number >= 1"),
        ({"batch_size": 0}, "batch_size: expected a number >= 1"),
        ({"learning_rate": 0.0}, "learning_rate: expected a finite number > 0"),
        ({"learning_rate": float("nan")}, "learning_rate: expected a finite number > 0"),
        ({"weight_decay": -1.0}, "weight_decay: expected a finite number >= 0"),
        ({"weight_decay": float("inf")}, "weight_decay: expected a finite number >= 0"),
        ({"patience": 0}, "patience: expected None or a number >= 1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingOptions(**options)  # type: ignore[arg-type]


def test_data_that_do_not_match_are_refused() -> None:
    x, y = problem()
    t = trainer()
    with pytest.raises(ValueError, match="as many targets as inputs, got 40 and 39"):
        Trainer(t.net, t.objective, x, y[1:], OPTIONS)
    with pytest.raises(ValueError, match="expected at least one sample"):
        Trainer(t.net, t.objective, x[:0], y[:0], OPTIONS)
