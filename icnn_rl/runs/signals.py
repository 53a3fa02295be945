"""Runs that stop when they are asked to."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


class Interrupted(Exception):  # noqa: N818 - not an error
    """The run was asked to stop; its checkpoint is written."""


@dataclass
class StopRequest:
    """Whether a run is to stop; no ``Event``, in whose lock one signal may wait for another."""

    made: bool = False


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """What Ctrl-C or a termination request makes; a second Ctrl-C stops at once."""
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def request(number: int, frame: object) -> None:
        stop.made = True
        if number == signal.SIGINT:
            signal.signal(number, previous[signal.SIGINT])

    signals = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, request) for number in signals}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
