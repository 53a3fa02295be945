"""What compiling costs a user once: CPU seconds of first calls, with a cache empty and full.

    python benchmarks/cold_start.py

Each row is measured in two fresh processes of one thread, which share a cache directory of numba
that is empty at first. A number is the CPU time (user and system) of the first call less that of a
second one; imports are not counted.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.metadata import version

from report import machine

PREPARE = """
import resource, torch
from icnn_rl import PICNN, Box, minimize
torch.set_num_threads(1)
torch.manual_seed(0)

def functions(activation):
    net = PICNN(4, 6, (64,), (64,), activation, ensemble=2).requires_grad_(False)
    return net.condition(torch.randn(256, 4)).mean(0)
"""
AGENT = """
import icnn_rl.solvers.newton
from icnn_rl.agents import ConcaveQ
agent = ConcaveQ("MlpPolicy", "Pendulum-v1", learning_starts=300, device="cpu")
agent.learn(300)

def call():
    agent.train(1)
"""
NEWTON = """
import icnn_rl.solvers.newton
f = functions("squareplus")

def call():
    minimize(f, Box(-1.0, 1.0), 1e-2)
"""
BUNDLE = """
import icnn_rl.solvers.bundle
f = functions("relu")

def call():
    minimize(f, Box(-1.0, 1.0), 1e-2)
"""
MEASURE = """
def spent():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime

times = [spent()]
for _ in range(2):
    call()
    times.append(spent())
print(times[1] - times[0] - (times[2] - times[1]))
"""
ROWS = {
    "first update of an agent (squareplus, box)": AGENT,
    "first minimize of smooth functions on a box": NEWTON,
    "first minimize of ReLU networks on a box (bundle)": BUNDLE,
}


def measured(code: str) -> tuple[float, float]:
    """CPU seconds of a first call, with an empty cache and with a full one."""
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"NUMBA_CACHE_DIR": cache, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", PREPARE + code + MEASURE]
        runs = [
            subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            for _ in range(2)
        ]
    empty, full = (float(run.stdout.split()[-1]) for run in runs)
    return empty, full


def main() -> None:
    """Print the table."""
    print(machine(), *(f"{p} {version(p)}" for p in ("numba", "llvmlite", "torch")), sep=", ")
    print("\n| | empty cache, CPU s | full cache, CPU s |\n| --- | --- | --- |")
    for name, code in ROWS.items():
        empty, full = measured(code)
        print(f"| {name} | {empty:.1f} | {full:.1f} |", flush=True)


if __name__ == "__main__":
    main()
