"""A benchmark's statistics and report, against numbers found in other ways."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from matplotlib.figure import Figure
from scipy.stats import mannwhitneyu

from icnn_rl.agents.benchmark.figures import _add_legend
from icnn_rl.agents.benchmark.report import _number
from icnn_rl.agents.benchmark.results import published
from icnn_rl.agents.benchmark.statistics import (
    bootstrap_interval,
    interquartile_mean,
    mean,
    probability_of_improvement,
)
from icnn_rl.agents.benchmark.suite import read_suite, suite_cell
from icnn_rl.cli import main
from icnn_rl.runs.configuration import to_plain
from icnn_rl.runs.pictures import line_styles

SUITE = """# Two tasks
tasks:
  Hopper-v5: {steps: 300, random: 10, reference: 110}
  Walker2d-v5: {steps: 200, random: 0, reference: 1000}
algorithms:
  concave-q: {seeds: [0, 1, 2]}
  sac: {}
  td3: {}
evaluate_every: 100
"""
RETURNS = {  # of the evaluations of each seed
    ("Hopper-v5", "concave-q"): [[0, 120, 90], [5, 60, 110], [10, 20, 40]],
    ("Hopper-v5", "sac"): [[10, 30, 60]],
    ("Hopper-v5", "td3"): [[10, 20, 30]],
    ("Walker2d-v5", "concave-q"): [[0, 500], [100, 700], [200, 1200]],
    ("Walker2d-v5", "sac"): [[300, 700]],
}
SPEED = 50  # steps a second


Tables = dict[str, list[list[str]]]  # their rows, by the heading above them


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tables]:
    folder = tmp_path_factory.mktemp("two")
    (folder / "two.yaml").write_text(SUITE)
    for (task, algorithm), runs in RETURNS.items():
        for seed, returns in enumerate(runs):
            write(folder / "results" / "two" / task / algorithm / f"{seed}.csv", returns)
    return folder, report(folder)


@pytest.fixture
def folder(reported: tuple[Path, Tables], tmp_path: Path) -> Path:
    """A copy of the suite and its results, to be changed."""
    source, _ = reported
    shutil.copy(source / "two.yaml", tmp_path)
    shutil.copytree(source / "results", tmp_path / "results")
    return tmp_path


def write(path: Path, returns: list[int]) -> None:
    task, algorithm, seed = *path.parts[-3:-1], int(path.stem)
    _, suite = read_suite(str(path.parents[4] / "two.yaml"))
    known = task in suite.tasks and algorithm in suite.algorithms
    metadata = {
        "task": task,
        "algorithm": algorithm,
        "seed": seed,
        "steps": 100 * len(returns),
        "commit": f"c0ffee{seed}",
        "config": to_plain(suite_cell("two", suite, task, algorithm, seed).config) if known else {},
    }
    lines = [f"# {line}" for line in yaml.safe_dump(metadata).splitlines()]
    lines.append(
        "steps,return_mean,return_std,return_min,return_max,length_mean,training_seconds,"
        "evaluations,gap_mean,gap_max,not_converged"
    )
    for i, value in enumerate(returns):
        steps = 100 * (i + 1)
        solver = "3.0,0.25,0.5,0.125" if algorithm == "concave-q" else ",,,"
        lines.append(f"{steps},{value},0,{value},{value},10,{steps / SPEED},{solver}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def report(folder: Path) -> Tables:
    """The tables of a report."""
    arguments = [str(folder / "two.yaml"), "--results", str(folder / "results")]
    assert main(["report", *arguments, "--out", str(folder / "out")]) == 0
    tables: Tables = {}
    for line in (folder / "out" / "report.md").read_text().splitlines():
        if line.startswith("## "):
            rows = tables.setdefault(line.removeprefix("## "), [])
        elif line.startswith("| "):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return tables


def test_the_report_of_a_task(reported: tuple[Path, Tables]) -> None:
    _, tables = reported
    header, _, *rows = tables["Hopper-v5"]
    found = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    ours = found["concave-q"]
    assert (ours["runs"], ours["steps"]) == ("3", "300")
    # The resamples of 90, 110 and 40 with the least and largest means are 3 of 40 and 3 of 110,
    # each of probability 1/27, which is beyond 2.5 %.
    assert ours["return at the end"] == f"{(90 + 110 + 40) / 3:.0f} [40, 110]"
    assert ours["best evaluation"] == f"{(120 + 110 + 40) / 3:.0f}"
    # Seed 0 reaches 110 at 200 steps, seed 1 at 300, seed 2 never.
    assert (ours["reached"], ours["steps to it"], ours["seconds to it"]) == ("2/3", "250", "5")
    assert (ours["steps/s"], ours["gap (mean)"], ours["not converged"]) == ("50", "0.25", "0.125")
    assert found["sac"]["return at the end"] == "60"  # no interval of a single run
    assert (found["sac"]["reached"], found["sac"]["gap (mean)"]) == ("0/1", "-")
    assert found["published: SAC, Hopper-v4"]["return at the end"] == "1103"
    assert found["published: ICNN, Hopper-v1"]["return at the end"] == "831"


def test_the_report_over_all_tasks(reported: tuple[Path, Tables]) -> None:
    folder, tables = reported
    text = (folder / "out" / "report.md").read_text()
    assert "Left out, as they lack some: td3." in text
    rows = {row[0]: row for row in tables["Over all tasks"][2:]}
    assert rows.keys() == {"concave-q", "sac"}
    scores = sorted([0.8, 1.0, 0.3, 0.5, 0.7, 1.2])
    assert rows["concave-q"][2].startswith(f"{np.mean(scores[1:-1]):.3g} [")
    assert rows["concave-q"][3].startswith(f"{np.mean(scores):.3g} [")
    assert rows["sac"][2:] == ["0.6", "0.6"]
    header, _, *lines = tables["Probability of improvement"]
    chances = {row[0]: dict(zip(header, row, strict=True)) for row in lines}
    # 90 and 110 of three beat 60; of 500, 700 and 1200, one beats 700 and one ties with it.
    assert chances["concave-q"]["sac"].startswith(f"{(2 / 3 + 1.5 / 3) / 2:.3g} [")
    assert chances["concave-q"]["td3"].startswith("1 [")  # on Hopper alone
    assert chances["td3"]["sac"] == "0"


def test_the_summary_has_every_run(reported: tuple[Path, Tables]) -> None:
    folder, _ = reported
    with (folder / "out" / "summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(len(runs) for runs in RETURNS.values())
    for row in rows:
        returns = RETURNS[row["task"], row["algorithm"]][int(row["seed"])]
        low, high = {"Hopper-v5": (10, 110), "Walker2d-v5": (0, 1000)}[row["task"]]
        assert float(row["return"]) == returns[-1]
        assert float(row["best"]) == max(returns)
        assert float(row["score"]) == pytest.approx((returns[-1] - low) / (high - low))
        assert float(row["steps_per_second"]) == SPEED
        assert row["commit"] == f"c0ffee{row['seed']}"
    for name in ("learning_curves.png", "aggregate.png"):
        assert (folder / "out" / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("path", "returns", "message"),
    [
        ("Ant-v5/sac/0.csv", [1, 2, 3], "is of sac on Ant-v5, which two does not have"),
        ("Hopper-v5/ppo/0.csv", [1, 2, 3], "is of ppo on Hopper-v5"),
        ("Hopper-v5/sac/1.csv", [1, 2], "ends before the 300 steps of two"),
    ],
)
def test_a_result_of_another_suite_is_refused(
    folder: Path,
    path: str,
    returns: list[int],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(folder / "results" / "two" / path, returns)
    arguments = [str(folder / "two.yaml"), "--results", str(folder / "results")]
    assert main(["report", *arguments, "--out", str(folder / "out")]) == 2
    error = capsys.readouterr().err
    assert path in error
    assert message in error
    assert not (folder / "out").exists()


def test_results_of_another_configuration_are_named_and_left_out(folder: Path) -> None:
    path = folder / "results" / "two" / "Hopper-v5" / "concave-q" / "1.csv"
    path.write_text(path.read_text().replace("tau: 0.02", "tau: 0.5"))
    runs = next(row for row in report(folder)["Hopper-v5"] if row[0] == "concave-q")
    assert runs[1] == "2"
    text = (folder / "out" / "report.md").read_text()
    assert "another configuration or under another name: Hopper-v5/concave-q/1.csv." in text


def test_results_of_a_shorter_suite_are_left_out_too(folder: Path) -> None:
    suite = folder / "two.yaml"
    suite.write_text(suite.read_text().replace("steps: 200", "steps: 400"))
    assert "Walker2d-v5" not in report(folder)
    text = (folder / "out" / "report.md").read_text()
    assert "under another name: Walker2d-v5/concave-q/0.csv, " in text


def test_copies_and_leftovers_do_not_count(reported: tuple[Path, Tables], folder: Path) -> None:
    runs = folder / "results" / "two" / "Hopper-v5" / "concave-q"
    (runs / ".partial-0.csv").write_text("# suite: [")
    (runs / "7.csv").write_text((runs / "0.csv").read_text())
    assert report(folder) == reported[1]
    text = (folder / "out" / "report.md").read_text()
    assert "under another name: Hopper-v5/concave-q/7.csv." in text


@pytest.mark.parametrize(
    ("value", "text"), [(999.4, "999"), (999.5, "1000"), (-999.6, "-1000"), (1234.5, "1234")]
)
def test_numbers_around_a_thousand_have_no_exponent(value: float, text: str) -> None:
    assert _number(value) == text


def test_the_last_evaluation_counts_whatever_the_period(folder: Path) -> None:
    suite = folder / "two.yaml"
    suite.write_text(suite.read_text().replace("evaluate_every: 100", "evaluate_every: 200"))
    for path in (folder / "results").rglob("*.csv"):
        path.write_text(path.read_text().replace("evaluate_every: 100", "evaluate_every: 200"))
    sac = next(row for row in report(folder)["Hopper-v5"] if row[0] == "sac")
    assert sac[3] == str(RETURNS["Hopper-v5", "sac"][0][-1])


def test_the_interquartile_mean_is_that_of_the_middle_half() -> None:
    scores = [np.array([100.0, 3.0, 1.0, 7.0]), np.array([2.0, 4.0, -50.0, 5.0])]
    assert interquartile_mean(scores) == np.mean([2, 3, 4, 5])
    assert interquartile_mean([np.array([1.0]), np.array([2.0]), np.array([6.0])]) == 3


def test_tasks_count_the_same_whatever_their_numbers_of_runs() -> None:
    scores = [np.ones(3), np.zeros(1)]
    assert mean(scores) == 0.5
    assert interquartile_mean(scores) == pytest.approx(0.5)
    repeated = [np.array([3.0, 9.0, -7.0, 1.0]), np.repeat([4.0, -5.0, 6.0], 5)]
    once = [repeated[0], np.array([4.0, -5.0, 6.0])]
    assert interquartile_mean(repeated) == pytest.approx(interquartile_mean(once))


def test_the_probability_of_improvement_is_mann_and_whitneys() -> None:
    generator = np.random.default_rng(0)
    first = [generator.integers(0, 5, size) / 1.0 for size in (3, 4)]
    second = [generator.integers(0, 5, size) / 1.0 for size in (5, 2)]
    shares = [
        mannwhitneyu(x, y).statistic / (x.size * y.size) for x, y in zip(first, second, strict=True)
    ]
    assert probability_of_improvement(first, second) == pytest.approx(np.mean(shares))
    other = probability_of_improvement(second, first)
    assert other == pytest.approx(1 - np.mean(shares))


def test_the_bootstrap_draws_the_runs_of_each_task_apart() -> None:
    # Were they drawn together, the mean of the two tasks would vary.
    assert bootstrap_interval(mean, [np.zeros(3), np.ones(3)]) == (0.5, 0.5)
    assert bootstrap_interval(mean, [np.zeros(1), np.ones(1)]) is None


def test_the_bootstrap_interval_of_many_runs_is_that_of_the_normal_distribution() -> None:
    runs = np.random.default_rng(0).normal(3, 2, 400)
    interval = bootstrap_interval(mean, [runs])
    assert interval is not None
    half = 1.96 * runs.std() / 20
    assert interval == pytest.approx((runs.mean() - half, runs.mean() + half), abs=0.03)


def test_what_is_published_says_where_it_stands() -> None:
    entries = published("HalfCheetah-v5")
    assert {entry["algorithm"] for entry in entries} == {"SAC", "REDQ", "DroQ", "CrossQ", "ICNN"}
    assert all(entry["source"] for entry in entries)
    assert not published("Pendulum-v1")


def test_no_two_algorithms_of_a_suite_are_drawn_alike() -> None:
    names = list(read_suite("ablation")[1].algorithms)
    styles = line_styles(names * 2)
    assert list(styles) == names
    assert len({tuple(style.items()) for style in styles.values()}) == len(names) > 10


@pytest.mark.parametrize("algorithms", [3, 18, 40])
def test_a_legend_names_every_algorithm_inside_the_picture(algorithms: int) -> None:
    figure = Figure(figsize=(8.4, 3.2), layout="constrained")
    axes = figure.add_subplot()
    _add_legend(figure, line_styles(f"batch-renormalisation-{k}" for k in range(algorithms)))
    figure.canvas.draw()
    legend = figure.legends[0]
    assert len(legend.get_texts()) == algorithms
    picture, box = figure.bbox, legend.get_window_extent()
    assert picture.x0 <= box.x0 < box.x1 <= picture.x1
    assert picture.y0 <= box.y0 < box.y1 <= picture.y1
    assert axes.get_window_extent().width > 0.4 * picture.width
