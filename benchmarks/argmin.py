"""Certified argmin of random ReLU networks: the bundle method against a loop over HiGHS.

    python benchmarks/argmin.py [--repeats 5]

Each row is one batch of PICNNs (context and convex path of the same widths, x ~ N(0, I)), minimised
over the box [-1, 1]ⁿ in float32 to a certified gap of 1e-4. "pass" is one forward and one backward
pass over the convex path of the whole batch; "floor" is the mean number of evaluations times that.
HiGHS solves the same problems exactly, one after the other, and the two are checked against each
other. One thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from report import machine, table

from icnn_rl import PICNN, Box, minimize

TOL = 1e-4
CASES = [
    # batch, widths, n
    (256, (200, 200), 1),
    (256, (200, 200), 6),
    (256, (200, 200), 17),
    (128, (600, 600), 10),
]
X_DIM = 17


def milliseconds(call: Callable[[], object], repeats: int) -> float:
    """The median time of a call after one that is not counted."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def run(batch: int, widths: tuple[int, ...], n: int, repeats: int) -> list[str]:
    """One row of the table."""
    torch.manual_seed(0)
    net = PICNN(X_DIM, n, context=widths, convex=widths, activation="relu")
    with torch.no_grad():
        f = net.condition(torch.randn(batch, X_DIM))
    box, y = Box(-1.0, 1.0), torch.zeros(batch, n)
    solution = minimize(f, box, TOL, "bundle")
    ours = milliseconds(lambda: minimize(f, box, TOL, "bundle"), repeats)
    with torch.no_grad():
        one_pass = milliseconds(lambda: f.value_and_gradient(y), 10 * repeats)

    start = time.perf_counter()
    exact = minimize(f, box, solver="lp")
    highs = 1e3 * (time.perf_counter() - start)
    error = (solution.value - exact.value).abs().max().item()
    if not bool((solution.lower_bound <= exact.value + 1e-6).all()) or error > 2 * TOL:
        raise RuntimeError(f"the bundle method and HiGHS differ by {error:.1e}")

    evaluations = solution.evaluations.double()
    floor = evaluations.mean().item() * one_pass
    return [
        f"{batch} × {'-'.join(map(str, widths))}, n {n}",
        f"{evaluations.mean():.1f} / {evaluations.max():.0f}",
        f"{ours:.1f}",
        f"{one_pass:.2f}",
        f"{floor:.1f}",
        f"{ours / floor:.1f}",
        f"{1 - solution.converged.double().mean().item():.1%}",
        f"{highs / batch:.1f}",
        f"{highs / ours:.0f}×",
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    print(machine(), end="\n\n", flush=True)
    header = [
        "problem",
        "evaluations (mean / max)",
        "ms a batch",
        "ms a pass",
        "floor ms",
        "ratio to floor",
        "not converged",
        "HiGHS ms a sample",
        "faster than HiGHS",
    ]
    print(table(header, [run(*case, repeats) for case in CASES]))


if __name__ == "__main__":
    main()
