"""A grid of cells: each cell without a result is run in a process, and its result written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Protocol

import yaml
from rich.console import Console

from icnn_rl.agents.benchmark.results import collect_result, read_result, result_path
from icnn_rl.agents.benchmark.suite import Cell
from icnn_rl.agents.runs.config import Config
from icnn_rl.agents.runs.outputs import AgentFolder
from icnn_rl.agents.runs.portable import finished_steps
from icnn_rl.runs.configuration import to_plain
from icnn_rl.runs.monitoring import ProgressDisplay
from icnn_rl.runs.process import Interrupted, stop_requests
from icnn_rl.runs.storage import write_text

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


class Backend(Protocol):
    """Where cells run."""

    def submit(self, cell: Cell, work: Path) -> Future[str]:
        """Run a cell as soon as there is room; the future gives its result as text."""

    def stop(self) -> None:
        """Stop the running cells, and begin no others."""

    def close(self) -> None:
        """Release all resources, once no cell is running."""


class LocalBackend(Backend):
    """Processes on this machine.

    Args:
        jobs: how many at a time.
    """

    def __init__(self, jobs: int) -> None:
        self._pool = ThreadPoolExecutor(jobs)
        self._stop = threading.Event()

    def submit(self, cell: Cell, work: Path) -> Future[str]:
        return self._pool.submit(run_cell, cell, work, self._stop)

    def stop(self) -> None:
        self._stop.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        self._pool.shutdown()


def cell_state(cell: Cell, results: Path) -> str:
    """``missing``, ``done``, or ``outdated`` if the result is of another configuration.

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
        finished_steps = 0
        try:
            while pending:
                for future in wait(pending, 1.0, FIRST_COMPLETED).done:
                    cell = pending.pop(future)
                    finished_steps += cell.config.training.steps
                    if not _finish(cell, future, results, display):
                        failed.append(cell)
                if stop.made:
                    raise Interrupted
                running = (cell_folder(cell, work).progress() for cell in pending.values())
                steps = finished_steps + sum(progress.last_step() for progress in running)
                display.update(steps, f"{len(todo) - len(pending)} of {len(todo)} cells")
        except BaseException:
            backend.stop()
            # wait() would never return for a cell that was cancelled before it began.
            wait([future for future in pending if not future.cancelled()])
            raise
        finally:
            backend.close()
    return failed


def _finish(cell: Cell, future: Future[str], results: Path, display: ProgressDisplay) -> bool:
    path = result_path(cell, results)
    try:
        text = future.result()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(text, path)
    except Exception as error:  # whatever it is: the other cells continue
        display.say(f"failed: {cell}: {error}")
        return False
    columns = read_result(path).columns
    final, seconds = columns["return_mean"][-1], columns["training_seconds"][-1]
    display.say(f"done: {cell}: return {final:.2f}, {seconds:.0f} s of training")
    return True


def run_cell(cell: Cell, work: Path, stop: threading.Event) -> str:
    """Begin a cell, or continue it, until it is finished; returns its result as text.

    Args:
        cell: what to train.
        work: folder of the runs.
        stop: set when the cell has to stop.

    Raises:
        ValueError: the run there is of another configuration.
        RuntimeError: the run failed.
        Interrupted: it was stopped, with a checkpoint.
    """
    run = cell_folder(cell, work)
    if run.config_file.exists() and not cell.is_of(run.load_config(Config)):
        raise ValueError(f"the run in {run.path} is of another configuration; move it away")
    if not _is_finished(cell, run):
        log = run.path.with_suffix(".log")
        code = _run_command(_command(cell, run), log, cell.config.threads, stop)
        if code != 0:
            lines = log.read_text("utf-8", errors="replace").splitlines()[-10:]
            raise RuntimeError(f"exit code {code}; the end of {log}:\n" + "\n".join(lines))
    result = collect_result(cell, run)
    shutil.rmtree(run.checkpoints, ignore_errors=True)  # each is as large as a replay buffer
    return result


def cell_folder(cell: Cell, work: Path) -> AgentFolder:
    """The folder of a cell's run, in the folder of all runs."""
    return AgentFolder(work / cell.path)


def _is_finished(cell: Cell, run: AgentFolder) -> bool:
    if finished_steps(run.path) < cell.config.training.steps:
        return False
    if not run.evaluations().rows:
        raise ValueError(f"the run in {run.path} has lost its evaluations.csv; move it away")
    return True


def _command(cell: Cell, run: AgentFolder) -> list[str]:
    """Arguments of ``icnn-rl`` that begin the cell's run, or continue it."""
    if run.last_checkpoint() is not None:
        return ["resume", str(run.path)]
    if run.versions_file.exists():
        with run.locked():
            pass  # no process trains there, so a folder without a checkpoint can be removed
    shutil.rmtree(run.path, ignore_errors=True)
    run.path.parent.mkdir(parents=True, exist_ok=True)
    config = run.path.with_suffix(".yaml")
    write_text(yaml.safe_dump(to_plain(cell.config), sort_keys=False), config)
    return ["train", str(config), "--run-dir", str(run.path)]


def _run_command(command: list[str], log: Path, threads: int, stop: threading.Event) -> int:
    """Run ``icnn-rl`` in a process, its output appended to ``log``; returns the exit code."""
    with (
        log.open("ab") as output,
        subprocess.Popen(
            [sys.executable, "-m", "icnn_rl", *command],
            env=os.environ | {name: str(threads) for name in _THREADS},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C in the terminal reaches the grid alone
        ) as process,
    ):
        try:
            while process.poll() is None:
                if stop.wait(0.2):
                    raise Interrupted
        except BaseException:
            process.terminate()  # it writes a checkpoint first
            raise
    return process.returncode
