"""Thousands of hard problems through every method: no certificate may be false.

    python benchmarks/robustness.py [--problems 2500] [--solver NAME] [--seed 0]

Problems are those of tests/core/hard_problems.py: flat functions, coinciding tangents, kinks and
vertices at the optimum, scales from 1e-6 to 1e6, sets that are thin, a point or empty, in float32
and float64. Every method that applies solves each to 1e-4 of the function's scale, within 200
evaluations. A certificate is false if its bound exceeds the least value, in float64, at any of a
hundred feasible points, the exact solution's and every method's among them, by more than rounding
explains. What does not converge in float32 is nearly always beyond that precision: the tolerance is
relative to what f varies by, and some of these functions are offset by far more. Results go to
benchmarks/results/robustness.csv, a row for every batch and method, as they come, and in sum to
robustness.md.
"""

from __future__ import annotations

import argparse
import csv
import random
import sys
from pathlib import Path
from typing import TextIO

import torch
from peer_solvers import PEER_SOLVERS, by_name
from report import machine, table

from icnn_rl import minimize
from icnn_rl.solvers import SOLVERS

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "core"))
from hard_problems import FUNCTIONS, SETS, Truth, entropic, hard_problem

NAMES = (*SOLVERS, *PEER_SOLVERS)
RESULTS = Path(__file__).parent / "results"
TOL = 1e-4  # of the function's scale
CAP = 200
POINTS = 100
BATCHES = (1, 8, 32)
FIELDS = ("function", "set", "seed", "dtype", "solver", "problems", "false certificates")
FIELDS += ("other faults", "not converged", "out of evaluations", "evaluations")
Row = dict[str, object]


def solve_batch(seed: int, solvers: list[str]) -> list[Row]:
    """One batch of problems by every method that applies: a row for each."""
    draw = random.Random(seed)
    function, where, batch = (draw.choice(c) for c in (FUNCTIONS, SETS, BATCHES))
    dtype = draw.choice((torch.float32, torch.float64))
    problem = hard_problem(function, where, seed, batch, dtype)
    variants = {False: problem, True: entropic(problem)}
    truths = {}
    solutions = {}
    for solver in solvers:
        if problem.applies(solver):
            entropy = solver == "bundle_entropy"
            if entropy not in truths:
                truths[entropy] = Truth(variants[entropy], POINTS)
            f, over, tol = variants[entropy].f, problem.over, TOL * problem.size
            solutions[solver] = minimize(f, over, tol, by_name(solver), max_evaluations=CAP)
            truths[entropy].learn(solutions[solver].y.double())
    rows: list[Row] = []
    for solver, solution in solutions.items():
        faults = truths[solver == "bundle_entropy"].faults(solution)
        false = faults.pop("false certificate")
        missed = ~(solution.converged | problem.empty)
        spent = missed & (solution.evaluations >= CAP - 1)  # some evaluate in pairs
        counts = (batch, false, torch.stack(list(faults.values())).any(0), missed, spent)
        values = (
            function,
            where,
            seed,
            dtype,
            solver,
            *(int(torch.as_tensor(c).sum()) for c in counts),
        )
        evaluations = " ".join(map(str, solution.evaluations[~problem.empty].tolist()))
        rows.append(dict(zip(FIELDS, (*values, evaluations), strict=True)))
    return rows


def summary(rows: list[Row]) -> str:
    """The table: a line for every method."""
    lines = []
    for solver in NAMES:
        mine = [row for row in rows if row["solver"] == solver]
        if not mine:
            continue

        def share(field: str, dtype: torch.dtype, mine: list[Row] = mine) -> str:
            these = [row for row in mine if row["dtype"] == dtype]
            problems = sum(int(str(row["problems"])) for row in these)
            return f"{sum(int(str(row[field])) for row in these) / max(problems, 1):.1%}"

        exact = [sum(int(str(row[field])) for row in mine) for field in FIELDS[5:8]]
        shares = [share("not converged", t) for t in (torch.float64, torch.float32)]
        spread = torch.tensor([int(k) for row in mine for k in str(row["evaluations"]).split()])
        lines.append([solver, *exact, *shares, int(spread.median()), int(spread.max())])
    header = ["method", *FIELDS[5:8], "not converged, float64", "float32"]
    return table([*header, "evaluations (median)", "(max)"], lines)


def run(problems: int, solvers: list[str], seed: int, file: TextIO) -> None:
    """Solve batches until there are enough problems, and write down each."""
    writer = csv.DictWriter(file, FIELDS)
    writer.writeheader()
    rows: list[Row] = []
    done = 0
    while done < problems:
        new = solve_batch(seed, solvers)
        writer.writerows(new)
        file.flush()
        for row in new:
            if row["false certificates"] or row["other faults"]:
                print(row, flush=True)
        rows += new
        done += max((int(str(row["problems"])) for row in new), default=0)
        seed += 1
        (RESULTS / "robustness.md").write_text(f"{machine()}\n\n{summary(rows)}\n")
    print(summary(rows))


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=2500)
    parser.add_argument("--solver", choices=NAMES)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    solvers = [arguments.solver] if arguments.solver else list(NAMES)
    with (RESULTS / "robustness.csv").open("w", newline="") as file:
        run(arguments.problems, solvers, arguments.seed, file)


if __name__ == "__main__":
    main()
