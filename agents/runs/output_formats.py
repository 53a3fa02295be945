"""Where stable-baselines3's logger writes to, beside TensorBoard."""

from __future__ import annotations

from typing import Any

import numpy as np
from stable_baselines3.common.logger import KVWriter, filter_excluded_keys

from icnn_rl.runs.tables import Table
from icnn_rl.runs.tracking import Tracker

STEPS = "time/total_timesteps"  # the key under which the agent logs its steps


class TableOutputFormat(KVWriter):
    """Writes what stable-baselines3 logs to a table."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def write(
        self,
        key_values: dict[str, Any],
        key_excluded: dict[str, tuple[str, ...]],
        step: int = 0,
    ) -> None:
        """Append the scalars as a row."""
        values = filter_excluded_keys(key_values, key_excluded, "csv")
        self.table.append({k: v for k, v in values.items() if isinstance(v, np.ScalarType)})

    def close(self) -> None:
        """Nothing is open between rows."""


class TrackerOutputFormat(KVWriter):
    """Sends what stable-baselines3 logs to Weights & Biases."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker

    def write(
        self,
        key_values: dict[str, Any],
        key_excluded: dict[str, tuple[str, ...]],
        step: int = 0,
    ) -> None:
        """Log the numbers among the values."""
        numbers = {k: v for k, v in key_values.items() if isinstance(v, int | float | np.number)}
        self.tracker.log(numbers, step)

    def close(self) -> None:
        """Finish the tracked run."""
        self.tracker.close()
