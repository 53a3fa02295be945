"""Faces: the left half of people never seen before, from the right one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor
from torch import Tensor

from icnn_rl.data import load_olivetti
from icnn_rl.experiments.config import FitConfig
from icnn_rl.experiments.experiment import Experiment, certificate, image_grid
from icnn_rl.runs.pictures import save
from icnn_rl.structured.completion import CompletionNetwork, Form, complete, completion_loss
from icnn_rl.structured.half_images import Variations, fit_kernel_regression, halves, joined
from icnn_rl.structured.training import Row, Trainer

TRAINING = 350  # images, of 35 people; the other 50 are of 5 others
A_PERSON = 10  # images
FORMS: dict[str, tuple[Form, ...]] = {"partial": ("convex",), "none": ("free", "plain")}
RIDGE, NEIGHBOURS = 0.1, 40  # chosen on people of the training set
SHOWN = 10  # faces


class Olivetti(Experiment):
    """Completion by a network convex in the missing half, and by methods to compare it with."""

    unused = (
        *("loss", "standardize", "network.context", "network.convex"),
        *("network.activation", "network.dropout"),
    )

    def __init__(self, config: FitConfig) -> None:
        super().__init__(config)
        unknown = [name for name in config.convexity if name not in FORMS]
        if unknown:
            raise ValueError(f"convexity: expected some of {', '.join(FORMS)}; got {unknown[0]!r}")
        faces = torch.as_tensor(load_olivetti(config.data).images).float() / 255
        faces = faces.to(config.device)
        people = TRAINING // A_PERSON
        held_out = A_PERSON * round(config.training.validation * people)
        self.train, self.val, self.test = faces.tensor_split([TRAINING - held_out, TRAINING])
        self.x, self.y = halves(self.test)
        self.variations = Variations()
        regression = fit_kernel_regression(self.train, self.variations)
        self.estimate = regression.predict(self.x)
        self.nets: dict[str, CompletionNetwork] = {}
        forms = [form for name in config.convexity for form in FORMS[name]]
        self.parts = {form: self._trainer(form) for form in forms}

    def measure(self) -> Mapping[str, Row]:
        """Mean squared errors on the scale 0-255, with and without the kernel regression."""
        rows: dict[str, Row] = {}
        for name, net in self.nets.items():
            alone, both = complete(net, self.x), complete(net, self.x, self.estimate)
            rows[name] = {"mse": self._error(both.y), "mse, network alone": self._error(alone.y)}
            if net.form == "convex":
                rows[name] |= certificate(both)
        rows["kernel regression"] = {"mse": self._error(self.estimate)}
        x, y = self._given_and_missing(torch.cat([self.train, self.train.flip(-1)]))
        for label, model in (
            ("ridge", Ridge(RIDGE * len(x))),
            ("k-nearest", KNeighborsRegressor(NEIGHBOURS)),
        ):
            answer = model.fit(x, y).predict(self._given_and_missing(self.test)[0])
            rows[label] = {"mse": self._error(torch.as_tensor(answer.clip(0, 1)))}
        rows["mirror image"] = {"mse": self._error(self.x.flatten(1))}
        return rows

    def draw(self, folder: Path) -> Mapping[str, Path]:
        """Given halves, completions and originals, two faces of each person."""
        chosen = torch.arange(0, len(self.test), len(self.test) // SHOWN)
        x = self.x[chosen]
        rows = [("given", joined(x, torch.ones_like(self.y[chosen])))]
        for name, net in self.nets.items():
            rows.append((name, joined(x, complete(net, x, self.estimate[chosen]).y)))
        rows.append(("original", self.test[chosen]))
        size = (SHOWN + 1.2, 1.05 * len(rows))
        figure, _ = image_grid(rows, size, cmap="gray", vmin=0, vmax=1)
        return {"completions": save(figure, folder / "completions.png")}

    def _trainer(self, form: Form) -> Trainer:
        torch.manual_seed(self.config.seed)  # all forms begin with the same U-Net
        net = CompletionNetwork((1, *self.x.shape[2:]), form).to(self.config.device)
        self.nets[form] = net

        def validate() -> Row:
            x, y = halves(self.val)
            return {"score": -_mse(complete(net, x).y, y)}

        held_out = validate if len(self.val) else None
        loss = completion_loss(net, self.variations)
        options, seed = self.config.training, self.config.seed
        return Trainer(net, loss, *halves(self.train), options, held_out, seed)

    def _error(self, y: Tensor) -> float:
        return _mse(y.to(self.y), self.y)

    def _given_and_missing(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x, y = halves(images.cpu())
        return x.flatten(1), y


def _mse(answer: Tensor, y: Tensor) -> float:
    return 255**2 * (answer - y).square().mean().item()
