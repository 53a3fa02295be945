"""One cell, in a process of its own: begun, gone on with, or just read off."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import yaml

from icnn_rl.agents.benchmark.cell import Cell
from icnn_rl.agents.benchmark.result import collect
from icnn_rl.agents.runs.agent_folder import AgentFolder
from icnn_rl.agents.runs.config import Config
from icnn_rl.runs.configuration import from_plain, to_plain
from icnn_rl.runs.signals import Interrupted
from icnn_rl.runs.storage import replacing

POLL = 0.2  # seconds
TAIL = 10  # lines of a failed cell's log that are shown
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def run_cell(cell: Cell, work: Path, stop: threading.Event) -> str:
    """Train a cell to its end, from where it is; returns its result as text.

    Args:
        cell: what to train.
        work: folder of the runs.
        stop: set when the cell has to stop.

    Raises:
        ValueError: the run there is of another configuration.
        RuntimeError: the run failed.
        Interrupted: it was stopped, with a checkpoint.
    """
    run = AgentFolder(work / cell.path)
    log = run.path.with_suffix(".log")
    if run.config_file.exists():
        _require_same(cell, run)
    if not is_finished(cell, run):
        code = _carry_out(_command(cell, run), log, cell.config.threads, stop)
        if code != 0:
            lines = log.read_text("utf-8", errors="replace").splitlines()[-TAIL:]
            raise RuntimeError(f"exit code {code}; the end of {log}:\n" + "\n".join(lines))
    result = collect(cell, run)
    shutil.rmtree(run.checkpoints, ignore_errors=True)  # a replay buffer's worth of disk
    return result


def is_finished(cell: Cell, run: AgentFolder) -> bool:
    """Whether a run has left everything behind.

    Raises:
        ValueError: it has an agent, but evaluations no more.
    """
    if not run.archive.exists():
        return False
    if not (rows := run.evaluations().rows):
        raise ValueError(f"the run in {run.path} has lost its evaluations.csv; move it away")
    return int(rows[-1]["steps"]) >= cell.config.training.steps


def steps_made(cell: Cell, work: Path) -> int:
    """Steps of a cell that its run has logged."""
    rows = AgentFolder(work / cell.path).progress().rows
    return int(rows[-1]["time/total_timesteps"]) if rows else 0


def _require_same(cell: Cell, run: AgentFolder) -> None:
    if not cell.is_of(from_plain(Config, run.read_config(), str(run.config_file))):
        raise ValueError(f"the run in {run.path} is of another configuration; move it away")


def _command(cell: Cell, run: AgentFolder) -> list[str]:
    if run.saved():
        return ["resume", str(run.path)]
    if run.versions_file.exists():
        with run.locked():
            pass  # nobody trains there, and without a checkpoint there is nothing to go on from
    shutil.rmtree(run.path, ignore_errors=True)
    run.path.parent.mkdir(parents=True, exist_ok=True)
    config = run.path.with_suffix(".yaml")
    with replacing(config) as temporary:
        temporary.write_text(yaml.safe_dump(to_plain(cell.config), sort_keys=False), "utf-8")
    return ["train", str(config), "--run-dir", str(run.path)]


def _carry_out(command: list[str], log: Path, threads: int, stop: threading.Event) -> int:
    environ = os.environ | {name: str(threads) for name in THREADS}
    # -P: in a checkout, the folder icnn_rl/ there would hide the installed package.
    arguments = [sys.executable, "-m", "icnn_rl.cli", *command]
    with (
        log.open("ab") as output,
        # In a session of its own: a Ctrl-C in the terminal is not for it, but for the grid.
        subprocess.Popen(
            arguments,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        ) as process,
    ):
        try:
            while process.poll() is None:
                if stop.wait(POLL):
                    raise Interrupted
        except BaseException:
            process.terminate()  # it writes a checkpoint first
            raise
    return process.returncode
