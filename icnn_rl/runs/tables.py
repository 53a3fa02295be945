"""CSV files that grow row by row, and go on after a run was stopped."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from icnn_rl.runs.storage import replacing


class Table:
    """A CSV file with a column of steps, to which rows are appended.

    A row with a new column rewrites the file, any other adds a line.

    Args:
        path: the file; its rows are kept.
        key: the column of steps.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self.key = key
        self.rows = _read(path) if path.exists() else []
        self.columns = list(self.rows[0]) if self.rows else []

    def append(self, row: dict[str, Any]) -> None:
        """Add a row."""
        text = {name: str(value) for name, value in row.items()}
        self.rows.append(text)
        if row.keys() <= set(self.columns):
            with self.path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self.columns).writerow(text)
        else:
            self.columns += [name for name in row if name not in self.columns]
            self._rewrite()

    def has(self, steps: int) -> bool:
        """Whether the last row is of this number of steps."""
        return bool(self.rows) and self.rows[-1][self.key] == str(steps)

    def drop_after(self, steps: int) -> None:
        """Drop the rows beyond a number of steps, and those that a kill left incomplete."""
        if self.path.exists():
            self.rows = [row for row in self.rows if _is_within(row[self.key], steps)]
            self._rewrite()

    def _rewrite(self) -> None:
        with (
            replacing(self.path) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, self.columns, restval="")
            writer.writeheader()
            writer.writerows(self.rows)


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        return [row for row in rows if None not in row and None not in row.values()]


def _is_within(text: str, steps: int) -> bool:
    return text.isdigit() and int(text) <= steps
