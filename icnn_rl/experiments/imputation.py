"""Missing entries of three tables, filled by a convex energy and by scikit-learn's imputers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.datasets import load_diabetes, load_iris, load_wine
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

from icnn_rl.configs import FitConfig
from icnn_rl.experiments.experiment import Experiment
from icnn_rl.experiments.pictures import COLORS, save
from icnn_rl.structured.imputer import ICNNImputer
from icnn_rl.structured.training import Row

DATA: dict[str, Callable[[], Any]] = {
    "iris": load_iris,
    "wine": load_wine,
    "diabetes": load_diabetes,
}
MISSING = (0.1, 0.3, 0.5)  # shares of all entries


class Imputation(Experiment):
    """Entries removed at random, and the root mean square error of what takes their place.

    Errors are in standard deviations of the columns. ``ICNNImputer`` trains while it is measured,
    so there is no part that could be stopped half-way.
    """

    def __init__(self, config: FitConfig) -> None:
        super().__init__(config)
        self.parts = {}
        self.errors: dict[str, Row] = {}

    def measure(self) -> Mapping[str, Row]:
        """A row for each table and share, a column for each imputer."""
        for name in DATA:
            x = standardised(name)
            for share in MISSING:
                holes = np.random.default_rng(self.config.seed).random(x.shape) < share
                known = np.where(holes, np.nan, x)
                self.errors[f"{name} {share:.0%}"] = {
                    method: float(
                        np.sqrt(np.square(imputer.fit_transform(known) - x)[holes].mean())
                    )
                    for method, imputer in self._imputers().items()
                }
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

    def _imputers(self) -> dict[str, Any]:
        config, training, seed = self.config, self.config.training, self.config.seed
        return {
            "mean": SimpleImputer(),
            "k-nearest": KNNImputer(),
            "iterative": IterativeImputer(random_state=seed),
            "ICNN": ICNNImputer(
                context=config.network.context,
                convex=config.network.convex,
                epochs=training.epochs,
                batch_size=training.batch_size,
                learning_rate=training.learning_rate,
                weight_decay=training.weight_decay,
                random_state=seed,
                device=config.device,
            ),
        }


def standardised(name: str) -> NDArray[np.float64]:
    """The columns of a table in standard units."""
    x = DATA[name]().data.astype(np.float64)
    return np.asarray((x - x.mean(0)) / x.std(0))
