"""Requests to stop, however many come."""

from __future__ import annotations

import subprocess
import sys

FLOOD = """
import signal, threading, time
from icnn_rl.runs.process import stop_requests

main, over = threading.get_ident(), threading.Event()

def flood():
    while not over.is_set():
        signal.pthread_kill(main, signal.SIGTERM)

with stop_requests() as stop:
    thread = threading.Thread(target=flood)
    thread.start()
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        pass
    over.set()
    thread.join()
    print(stop.made)
"""


def test_a_request_may_interrupt_the_last_one() -> None:
    # As where a scheduler tells a whole process group, and its leader tells the group again.
    result = subprocess.run(
        [sys.executable, "-c", FLOOD], capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.returncode, result.stdout) == (0, "True\n"), result.stderr
