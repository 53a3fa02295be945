"""The process of a run: its device, its random state, and requests to stop it."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

STOPPING = b"\nstopping; Ctrl-C again stops at once\n"


def require_device(name: str) -> None:
    """Refuse a device that PyTorch cannot use on this machine.

    Raises:
        ValueError: there is no device of that name, or it does not work.
    """
    try:
        torch.zeros(1, device=name).item()
    # PyTorch raises the first two or an import error for a missing device, others for a bad name.
    except (RuntimeError, AssertionError, ImportError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"device: expected one that PyTorch can use here, got {name!r} ({reason}); "
            "--device chooses another"
        ) from None


def memory() -> int:
    """The memory that this process may have at most, in bytes."""
    limits = [sys.maxsize]
    if sys.platform != "win32":
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    of_container = Path("/sys/fs/cgroup/memory.max")
    if of_container.exists() and (text := of_container.read_text("utf-8").strip()).isdigit():
        limits.append(int(text))
    return min(limits)


def random_state() -> dict[str, Any]:
    """The state of the global random generators of Python, NumPy and PyTorch."""
    state = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Set the global random generators to a state that ``random_state`` returned."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


@contextmanager
def preserved_random_state() -> Iterator[None]:
    """On leaving, the global random generators are as they were on entering."""
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)


class TaskError(Exception):
    """Code of the user's task raised an error.

    Args:
        message: one sentence.
        trace: traceback of that error, as text, since other processes do not pass on its objects.
    """

    def __init__(self, message: str, trace: str) -> None:
        super().__init__(message, trace)
        self.message = message
        self.trace = trace

    def __str__(self) -> str:
        return self.message


@contextmanager
def task_code(message: str) -> Iterator[None]:
    """Within, any error becomes a ``TaskError`` with a message and its own traceback."""
    try:
        yield
    except TaskError:
        raise
    except Exception as error:
        frames = error.__traceback__
        for _ in range(2):  # of this function and its caller
            frames = frames and frames.tb_next
        trace = "".join(traceback.format_exception(type(error), error, frames))
        raise TaskError(message, trace) from error


class Interrupted(Exception):  # noqa: N818 - not an error
    """The run was asked to stop, and has written its checkpoint."""


@dataclass
class StopRequest:
    """Whether the process was asked to stop.

    A plain flag: a signal handler that interrupts another one would wait for an ``Event``'s lock.
    """

    made: bool = False


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Within, SIGTERM raises a KeyboardInterrupt, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Within, Ctrl-C, SIGTERM and a closed terminal set the returned flag.

    The first request is answered by a line on the standard error stream; a second Ctrl-C stops at
    once. Under nohup, a closed terminal does nothing.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def request(number: int, frame: object) -> None:
        if not stop.made:
            with suppress(OSError):  # the terminal is closed
                os.write(2, STOPPING)  # no print(), which this handler may have interrupted
        stop.made = True
        if number == signal.SIGINT:
            signal.signal(number, previous[signal.SIGINT])

    signals = [signal.SIGINT, signal.SIGTERM]
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signals.append(signal.SIGHUP)
    previous = {number: signal.signal(number, request) for number in signals}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
