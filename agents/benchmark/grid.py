"""A grid of cells: those without a result are run, and their results written."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Protocol

from rich.console import Console

from icnn_rl.agents.benchmark.cell import Cell
from icnn_rl.agents.benchmark.result import read_result, result_path, write_result
from icnn_rl.agents.benchmark.running import run_cell, steps_made
from icnn_rl.runs.progress import ProgressDisplay
from icnn_rl.runs.signals import Interrupted, stop_requests

POLL = 1.0  # seconds


class Backend(Protocol):
    """Where cells run."""

    def submit(self, cell: Cell, work: Path) -> Future[str]:
        """Have a cell run as soon as there is room; its result as text is to come."""

    def stop(self) -> None:
        """Have the running cells stop, and no others begin."""

    def close(self) -> None:
        """Give everything back, when no cell runs any more."""


class LocalBackend:
    """Processes on this machine.

    Args:
        jobs: how many at a time.
    """

    def __init__(self, jobs: int) -> None:
        self._pool = ThreadPoolExecutor(jobs)
        self._stop = threading.Event()

    def submit(self, cell: Cell, work: Path) -> Future[str]:
        """Have a cell run as soon as there is room; its result as text is to come."""
        return self._pool.submit(run_cell, cell, work, self._stop)

    def stop(self) -> None:
        """Have the running cells stop, and no others begin."""
        self._stop.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """Give everything back, when no cell runs any more."""
        self._pool.shutdown()


def cell_state(cell: Cell, results: Path) -> str:
    """``missing``, ``done``, or ``outdated``: with a result of another configuration.

    Raises:
        ValueError: the result is damaged.
    """
    path = result_path(cell, results)
    if not path.exists():
        return "missing"
    return "done" if read_result(path).is_of(cell) else "outdated"


def run_grid(
    cells: Sequence[Cell], results: Path, work: Path, backend: Backend, console: Console
) -> list[Cell]:
    """Run the cells that have no result; returns those that failed.

    Args:
        cells: of the grid.
        results: folder of the results.
        work: folder of the runs.
        backend: where they run.
        console: where progress is shown.

    Raises:
        ValueError: a result is damaged.
        Interrupted: the process was asked to stop; every running cell has a checkpoint.
    """
    states = [cell_state(cell, results) for cell in cells]
    failed = [cell for cell, state in zip(cells, states, strict=True) if state == "outdated"]
    todo = [cell for cell, state in zip(cells, states, strict=True) if state == "missing"]
    total = sum(cell.config.training.steps for cell in todo)
    with ProgressDisplay(console, total) as display, stop_requests() as stop:
        for cell in failed:
            path = result_path(cell, results)
            display.say(f"failed: {cell}: {path} is of another configuration; move it away")
        display.say(f"{len(todo)} of {len(cells)} cells to run")
        pending = {backend.submit(cell, work): cell for cell in todo}
        steps = 0  # of the finished cells
        try:
            while pending:
                for future in wait(pending, POLL, FIRST_COMPLETED).done:
                    cell = pending.pop(future)
                    steps += cell.config.training.steps
                    if not _finish(cell, future, results, display):
                        failed.append(cell)
                if stop.made:
                    raise Interrupted
                made = steps + sum(steps_made(cell, work) for cell in pending.values())
                display.update(made, f"{len(todo) - len(pending)} of {len(todo)} cells")
        except BaseException:
            backend.stop()
            # One that never began is cancelled, and for wait() never done.
            wait([future for future in pending if not future.cancelled()])
            raise
        finally:
            backend.close()
    return failed


def _finish(cell: Cell, future: Future[str], results: Path, display: ProgressDisplay) -> bool:
    try:
        write_result(future.result(), result_path(cell, results))
    except Exception as error:  # whatever it was, the other cells go on
        display.say(f"failed: {cell}: {error}")
        return False
    last = read_result(result_path(cell, results)).columns
    seconds = last["training_seconds"][-1]
    display.say(f"done: {cell}: return {last['return_mean'][-1]:.2f}, {seconds:.0f} s of training")
    return True
