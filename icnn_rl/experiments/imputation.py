"""Missing entries of three tables, filled by a convex energy and by scikit-learn's imputers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.datasets import load_diabetes, load_iris, load_wine
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

from icnn_rl.experiments.config import FitConfig
from icnn_rl.experiments.experiment import Experiment
from icnn_rl.runs.pictures import COLORS, save
from icnn_rl.structured.imputer import ICNNImputer
from icnn_rl.structured.training import Row

Array = NDArray[np.float64]

DATA: dict[str, Callable[[], Any]] = {
    "iris": load_iris,
    "wine": load_wine,
    "diabetes": load_diabetes,
}
MISSING = (0.1, 0.3, 0.5)  # shares of all entries


@dataclass(frozen=True)
class Holes:
    """A table in standard units, some of whose entries are taken as missing.

    Args:
        table: ``(N, n)``.
        missing: where, ``(N, n)``.
    """

    table: Array
    missing: NDArray[np.bool_]

    @property
    def known(self) -> Array:
        """The table with NaN where an entry is missing."""
        return np.where(self.missing, np.nan, self.table)

    def error(self, filled: Array) -> float:
        """The root mean square error of what was put into the holes."""
        return float(np.sqrt(np.square(filled - self.table)[self.missing].mean()))


class Imputation(Experiment):
    """Entries removed at random, and the root mean square error of what takes their place.

    Errors are in standard deviations of the columns.
    """

    unused = (
        *("convexity", "loss", "standardize", "data", "network.dropout"),
        *("training.validation", "training.patience"),
    )

    def __init__(self, config: FitConfig) -> None:
        super().__init__(config)
        shares = [(name, share) for name in DATA for share in MISSING]
        self.holes = {f"{name} {share:.0%}": self._holes(name, share) for name, share in shares}
        self.imputers = {name: self._imputer() for name in self.holes}
        self.parts = {
            name: imputer.trainer(self.holes[name].known) for name, imputer in self.imputers.items()
        }
        self.errors: dict[str, Row] = {}

    def measure(self) -> Mapping[str, Row]:
        """A row for each table and share, a column for each imputer."""
        self.errors = {name: self._measure(name) for name in self.holes}
        return self.errors

    def draw(self, folder: Path) -> Mapping[str, Path]:
        """The errors as bars."""
        methods = list(next(iter(self.errors.values())))
        figure = Figure(figsize=(9, 3.4), layout="constrained", dpi=150)
        axes = figure.add_subplot()
        places = np.arange(len(self.errors))
        width = 0.8 / len(methods)
        for k, method in enumerate(methods):
            heights = [row[method] for row in self.errors.values()]
            axes.bar(places + k * width, heights, width, label=method, color=COLORS[k])
        axes.set_xticks(places + 0.4 - width / 2, list(self.errors), fontsize="small")
        axes.set_ylabel("RMSE, in standard deviations")
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(frameon=False, ncols=len(methods), loc="outside upper center")
        return {"errors": save(figure, folder / "errors.png")}

    def _holes(self, name: str, share: float) -> Holes:
        table = standardised(DATA[name])
        return Holes(table, np.random.default_rng(self.config.seed).random(table.shape) < share)

    def _imputer(self) -> ICNNImputer:
        config = self.config
        names = ("epochs", "batch_size", "learning_rate", "weight_decay")
        return ICNNImputer(
            context=config.network.context,
            convex=config.network.convex,
            random_state=config.seed,
            device=config.device,
            **{name: getattr(config.training, name) for name in names},
        )

    def _measure(self, name: str) -> Row:
        holes = self.holes[name]
        known = holes.known
        others = {
            "mean": SimpleImputer(),
            "k-nearest": KNNImputer(),
            "iterative": IterativeImputer(random_state=self.config.seed),
        }
        errors = {method: holes.error(m.fit_transform(known)) for method, m in others.items()}
        return errors | {"ICNN": holes.error(self.imputers[name].transform(known))}


def standardised(load: Callable[[], Any]) -> Array:
    """The columns of a table in standard units, less those that are constant."""
    x = load().data.astype(np.float64)
    x = x[:, x.std(0) > 0]
    return np.asarray((x - x.mean(0)) / x.std(0))
