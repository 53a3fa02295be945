"""Certified argmin of networks, beside what else one could use for it.

    python benchmarks/argmin.py [--only random trained ...] [--repeats 5]

The peers are `pip install cvxpy cvxpylayers diffcp` and the package's extra ``solvers``. Each table
goes to benchmarks/results/argmin/ as it is measured, in the place of the one that is there.
Networks are PICNNs, context and convex path of the same widths, x ~ N(0, I), in float32; every
answer of ours is certified to a gap of 1e-4, but for the share that is said not to have converged.
One thread. A "pass" is one forward and one backward pass over the convex path of the whole batch,
and the "floor" of a batch is the mean number of evaluations times that.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from networks import X_DIM, conditioned, network
from peers import PEERS
from report import machine

from icnn_rl import (
    Box,
    ConvexFunction,
    ConvexSet,
    Simplex,
    Solution,
    minimize,
    negative_entropy,
    quadratic,
)

TOL = 1e-4
FOLDER = Path(__file__).parent / "results" / "argmin"
BOX, UNIT = Box(-1.0, 1.0), Box(0.0, 1.0)

Row = dict[str, str]


def milliseconds(calls: list[Callable[[], object]], repeats: int) -> list[float]:
    """Median times of calls that take turns, after a round that is not counted."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats + 1):
        for call, own in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            own.append(time.perf_counter() - start)
    return [1e3 * statistics.median(own[1:]) for own in times]


def measured(
    f: ConvexFunction, over: ConvexSet, repeats: int, solver: str = "auto"
) -> tuple[Solution, float, Row]:
    """Our solution, its time in milliseconds, and the columns that say how good they are."""
    assert f.like is not None
    y = f.like.new_zeros(*f.batch_shape, f.dim or 0)

    @torch.no_grad()
    def passes() -> None:
        for _ in range(10):
            f.value_and_gradient(y)

    solution = minimize(f, over, TOL, solver)
    ours, ten = milliseconds([lambda: minimize(f, over, TOL, solver), passes], repeats)
    evaluations = solution.evaluations.double()
    floor = float(evaluations.mean()) * ten / 10
    return (
        solution,
        ours,
        {
            "evaluations (mean / max)": f"{evaluations.mean():.1f} / {evaluations.max():.0f}",
            "ms a batch": f"{ours:.2f}",
            "ms a pass": f"{ten / 10:.2f}",
            "ratio to floor": f"{ours / floor:.1f}",
            "not converged": f"{1 - solution.converged.double().mean():.1%}",
        },
    )


def above(peer: str) -> str:
    """The column that says how far a peer without a certificate is above the minimum."""
    return f"{peer}: above min f by (median / max)"


def against_peers(
    name: str, f: ConvexFunction, over: ConvexSet, repeats: int, peers: list[str]
) -> Row:
    """One row: our batch, and how many times as long each peer takes for a sample."""
    solution, ours, columns = measured(f, over, repeats)
    row = {"problem": name, **columns}
    for peer in peers:
        if peer == "bundle entropy" and over is not BOX:
            row[peer] = row[above(peer)] = ""
            continue
        answer = PEERS[peer](f, over)
        row[peer] = f"{1e3 * answer.seconds * len(solution.y) / ours:.0f}×"
        excess = answer.excess(f, solution.value)
        # No answer may be better than what is proved, and an exact one is not worse than ours.
        if float((excess + solution.gap[: len(excess)]).min()) < -1e-5:
            raise RuntimeError(f"{name}: {peer} is below the certified bound by {excess.min():.1e}")
        if peer in ("Adam", "bundle entropy"):
            row[peer] += f" ({answer.evaluations:.0f} evaluations)"
            row[above(peer)] = f"{excess.median():.0e} / {excess.max():.0e}"
        else:
            if float(excess.max()) > TOL:
                raise RuntimeError(f"{name}: {peer} is above our minimum by {excess.max():.1e}")
            row[peer] += f" ({1e3 * answer.seconds:.0f} ms, {len(excess)})"
    return row


def batches(trained: bool, repeats: int) -> Iterator[Row]:
    """Batches of 200-200 on the box and of 600-600 on box and simplex, with every peer."""
    for batch, width, n, over in [
        (256, 200, 1, BOX),
        (256, 200, 3, BOX),
        (256, 200, 6, BOX),
        (256, 200, 17, BOX),
        (128, 600, 10, BOX),
        (128, 600, 10, Simplex()),
    ]:
        f = conditioned(batch, (width, width), n, trained=trained)
        name = f"{batch} × {width}-{width}, n {n}, {type(over).__name__.lower()}"
        yield against_peers(name, f, over, repeats, list(PEERS))


def random(repeats: int) -> Iterator[Row]:
    """Random networks; peers: how many times our time, ms a sample, and samples measured."""
    yield from batches(False, repeats)


def trained(repeats: int) -> Iterator[Row]:
    """Trained networks; peers: how many times our time, ms a sample, and samples measured."""
    yield from batches(True, repeats)


def entropic(repeats: int) -> Iterator[Row]:
    """f - H(y), H the entropy of (1 + y)/2: the bundle entropy method, batched and in NumPy."""
    for n in (1, 3, 6, 17):
        f = conditioned(256, (200, 200), n)
        entropy = negative_entropy(1.0)
        solution, ours, columns = measured(f + entropy, BOX, repeats, "bundle_entropy")
        answer = PEERS["bundle entropy"](f, BOX)
        excess = answer.excess(f + entropy, solution.value)
        yield {
            "problem": f"256 × 200-200, n {n}",
            **columns,
            "in NumPy": f"{1e3 * answer.seconds * 256 / ours:.0f}× ({1e3 * answer.seconds:.0f} ms)",
            "above the minimum by (median / max)": f"{excess.median():.0e} / {excess.max():.0e}",
        }


def growth(repeats: int) -> Iterator[Row]:
    """Batch sizes, 200-200 and n = 6 on the box; random networks."""
    for batch in (1, 4, 16, 64, 256, 1024, 4096):
        _, ours, columns = measured(conditioned(batch, (200, 200), 6), BOX, repeats)
        yield {"batch": str(batch), **columns, "µs a sample": f"{1e3 * ours / batch:.0f}"}


def latency(repeats: int) -> Iterator[Row]:
    """One state, n = 6, 200-200: what acting takes, conditioning included; 40 × repeats states."""
    for activation in ("relu", "softplus"):
        for kind in (False, True):
            net = network((200, 200), 6, activation, trained=kind)
            argmin, acting, evaluations = [], [], []
            for x in torch.randn(10 + 40 * repeats, 1, X_DIM):
                start = time.perf_counter()
                with torch.no_grad():
                    f = net.condition(x)
                middle = time.perf_counter()
                solution = minimize(f, BOX, TOL)
                end = time.perf_counter()
                argmin.append(1e3 * (end - middle))
                acting.append(1e3 * (end - start))
                evaluations.append(int(solution.evaluations))
            argmin, acting = sorted(argmin[10:]), sorted(acting[10:])  # the first warm up
            yield {
                "network": f"{activation}, {'trained' if kind else 'random'}",
                "evaluations (mean / max)": (
                    f"{statistics.mean(evaluations):.1f} / {max(evaluations)}"
                ),
                "argmin, ms (median)": f"{statistics.median(argmin):.2f}",
                "99th percentile": f"{argmin[len(argmin) * 99 // 100]:.2f}",
                "with conditioning, ms (median)": f"{statistics.median(acting):.2f}",
            }


def wide(repeats: int) -> Iterator[Row]:
    """Many variables, 200-200 on [0, 1]ⁿ: as many as BibTeX has labels, Olivetti half pixels."""
    for batch, n, gamma in [(32, 159, 0.0), (32, 159, 1.0), (8, 2048, 0.0), (8, 2048, 1.0)]:
        f = conditioned(batch, (200, 200), n)
        if gamma > 0:
            f = f + quadratic(gamma, torch.full((n,), 0.5))
        for solver in ("bundle", "level", "accelerated_gradient", "lp"):
            if solver == "lp" and gamma > 0:
                continue
            first = f.take(torch.arange(2)) if solver == "lp" else f
            solution = minimize(first, UNIT, TOL, solver)
            (spent,) = milliseconds([partial(minimize, first, UNIT, TOL, solver)], 1)
            evaluations = solution.evaluations.double()
            yield {
                "problem": f"{batch} × n {n}, γ {gamma:g}",
                "solver": solver,
                "evaluations (mean / max)": f"{evaluations.mean():.0f} / {evaluations.max():.0f}",
                "ms a sample": f"{spent / len(solution.y):.1f}",
                "gap (median / max)": f"{solution.gap.median():.0e} / {solution.gap.max():.0e}",
                "not converged": f"{1 - solution.converged.double().mean():.0%}",
            }


TABLES: dict[str, Callable[[int], Iterator[Row]]] = {
    t.__name__: t for t in (random, trained, entropic, growth, latency, wide)
}


def main() -> None:
    """Print the tables and write them to files, row by row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    peers = ("ecos", "clarabel", "cvxpy", "cvxpylayers", "diffcp")
    print(machine(), *(f"{peer} {version(peer)}" for peer in peers), sep=", ")
    for name in arguments.only:
        print(f"\n{name}: {TABLES[name].__doc__}\n")
        with (FOLDER / f"{name}.csv").open("w", newline="") as file:
            writer = None
            for row in TABLES[name](arguments.repeats):
                if writer is None:
                    writer = csv.DictWriter(file, row)
                    writer.writeheader()
                    print("| " + " | ".join(row) + " |\n" + "| --- " * len(row) + "|")
                writer.writerow(row)
                file.flush()
                print("| " + " | ".join(row.values()) + " |", flush=True)


if __name__ == "__main__":
    main()
