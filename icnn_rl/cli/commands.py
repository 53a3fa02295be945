"""What each command does; what is slow to load is imported where it is used."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from icnn_rl.runs.configuration import CONFIGS, find_preset, parse_config, presets, read_mapping
from icnn_rl.runs.folder import RunFolder, new_folder
from icnn_rl.runs.process import Interrupted

if TYPE_CHECKING:
    from icnn_rl.agents.benchmark.grid import Backend
    from icnn_rl.agents.runs.environments import Vectorize

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130  # exit codes
RUNS, RESULTS = Path("runs/benchmark"), Path("benchmarks/results")  # of benchmarks, by default
STUDIES = Path("runs/tune")  # of tune, by default


def train(arguments: argparse.Namespace, console: Console) -> int:
    """Train an agent."""
    _announce_loading(console)
    config, preset = agent_config(arguments)

    from icnn_rl.agents.runs import training

    vectorize = _vectorize(arguments)
    with _folder(arguments, preset or config.env.id, config.seed) as run:
        return _carry_out(lambda: training.train(config, run, console, vectorize), run, console)


def _folder(arguments: argparse.Namespace, name: str, seed: int) -> AbstractContextManager[Path]:
    chosen: Path | None = arguments.run_dir
    return new_folder(name, seed) if chosen is None else nullcontext(chosen)


def agent_config(arguments: argparse.Namespace) -> tuple[Any, str | None]:
    """The configuration of an agent's run, and the name of its preset."""
    given = {"env.id": arguments.env, "training.steps": arguments.steps}
    first = [f"--{key}={value}" for key, value in given.items() if value is not None]
    arguments.overrides[:0] = first
    return _config(arguments)


def _vectorize(arguments: argparse.Namespace) -> Vectorize | None:
    """What puts the environments of an agent side by side, if it is not the configuration's."""
    if not _on_ray(arguments):
        return None

    from icnn_rl.agents.cluster.environments import RayVecEnv

    return lambda makers: RayVecEnv(makers, arguments.address, os.cpu_count() or 1)


def fit(arguments: argparse.Namespace, console: Console) -> int:
    """Fit an energy to data."""
    config, preset = _config(arguments)

    from icnn_rl.experiments import fitting

    with _folder(arguments, preset or config.experiment, config.seed) as run:
        return _carry_out(lambda: fitting.fit(config, run, console), run, console)


def kind(command: str) -> type[Any]:
    """The configuration of a command."""
    if command == "fit":
        from icnn_rl.experiments.config import FitConfig

        return FitConfig
    from icnn_rl.agents.runs.config import Config

    return Config


def _config(arguments: argparse.Namespace) -> tuple[Any, str | None]:
    """The configuration that a command line asks for, and the name of its preset."""
    config_class = kind(arguments.command)
    keys = ["--track=true"] * arguments.track + arguments.overrides
    if arguments.preset is None and not keys:
        raise ValueError(
            "name a preset or a YAML file; "
            f"`icnn-rl {arguments.command} --help` says what else can be given"
        )
    name, start, source = None, {}, ""
    if arguments.preset is not None:
        path = find_preset(arguments.preset, "fit" if arguments.command == "fit" else "train")
        name, start, source = path.stem, read_mapping(path), str(path)
        if path.is_relative_to(CONFIGS) and _algorithm(keys) != "concave_q":
            start.pop("agent", None)  # a preset's task can be learned by another algorithm, too
    return parse_config(config_class, keys, start, source, arguments.options), name


def _algorithm(keys: list[str]) -> str:
    """The algorithm that a command line names."""
    tokens = [token for key in keys for token in key.split("=", 1)]
    after = (b for a, b in pairwise(tokens) if a == "--algorithm")
    return next(after, "concave_q")


def tune(arguments: argparse.Namespace, console: Console) -> int:
    """Search for good keys."""
    _announce_loading(console)
    config, preset = agent_config(arguments)
    _require_at_least(1, "--trials", arguments.trials)
    jobs = len(arguments.seeds) if arguments.jobs is None else arguments.jobs
    _require_at_least(1, "--jobs", jobs)
    for seed in arguments.seeds:
        _require_at_least(0, "--seeds", seed)
    path = arguments.search or CONFIGS / "search" / f"{config.algorithm}.yaml"
    if not path.is_file():
        raise ValueError(f"--search: expected what to try for {config.algorithm}, got no {path}")
    try:
        from icnn_rl.agents.benchmark import tuning
    except ImportError:
        raise ValueError("tune needs Optuna: pip install 'icnn-rl[tune]'") from None

    training = replace(config.training, video=False)
    name = (preset or config.env.id).replace(":", "-").replace("/", "-").lower()
    folder = arguments.work_dir or STUDIES / name
    options = arguments.trials, arguments.seeds, jobs, arguments.storage, console
    try:
        tuning.tune(replace(config, training=training), read_mapping(path), folder, *options)
    except Interrupted:
        say(console, "stopped, and saved; the same command goes on")
        return INTERRUPTED
    best = folder / "best.yaml"
    say(console, f"done: icnn-rl train {best}" if best.is_file() else "no trial was finished")
    return 0 if best.is_file() else FAILED


def resume(arguments: argparse.Namespace, console: Console) -> int:
    """Go on with a run."""
    run, track, device = arguments.run, arguments.track, arguments.device
    if _is_fit(run):
        _refuse(arguments, "a fit", "steps", "backend", "address")

        from icnn_rl.experiments import fitting

        return _carry_out(
            lambda: fitting.resume(run, console, arguments.epochs, track, device), run, console
        )

    _refuse(arguments, "no fit", "epochs")
    _announce_loading(console)

    from icnn_rl.agents.runs import training

    steps, vectorize = arguments.steps, _vectorize(arguments)
    return _carry_out(
        lambda: training.resume(run, console, steps, track, vectorize, device), run, console
    )


def evaluate(arguments: argparse.Namespace, console: Console) -> int:
    """Play with an agent, or measure a fit."""
    if _is_fit(arguments.run):
        _refuse(arguments, "a fit", "episodes", "seed", "env", "backend", "address", "video")

        from icnn_rl.experiments import fitting

        fitting.evaluate(arguments.run, console)
        return 0

    episodes = 20 if arguments.episodes is None else arguments.episodes
    seed = arguments.seed or 0
    _require_at_least(1, "--episodes", episodes)
    _require_at_least(0, "--seed", seed)
    if arguments.video is not None and not arguments.video.parent.is_dir():
        raise ValueError(f"--video: there is no folder {arguments.video.parent}")
    _announce_loading(console)

    from icnn_rl.agents.runs import evaluation
    from icnn_rl.agents.runs.environments import make_environment
    from icnn_rl.agents.runs.portable import load_portable
    from icnn_rl.agents.runs.video import record_video

    model, config = load_portable(arguments.run, arguments.env)
    if _on_ray(arguments):
        from icnn_rl.agents.cluster.tasks import evaluate_remotely

        found = evaluate_remotely(
            arguments.run, config.env.id, episodes, seed, arguments.address, os.cpu_count() or 1
        )
    else:
        training = replace(config.training, evaluation_episodes=episodes)
        make = partial(make_environment, config.env)
        found = evaluation.evaluate(model, make, training, seed)
    say(console, f"{config.env.id}: return {found} in {episodes} episodes")
    if arguments.video is not None:
        record_video(arguments.run, arguments.video, seed)
    return 0


def benchmark(arguments: argparse.Namespace, console: Console) -> int:
    """Run a grid of tasks, algorithms and seeds."""
    if arguments.jobs is not None:
        _require_at_least(1, "--jobs", arguments.jobs)

    from icnn_rl.agents.benchmark.grid import cell_state, run_grid
    from icnn_rl.agents.benchmark.suite import read_suite, suite_cells

    name, suite = read_suite(arguments.suite)
    cells = suite_cells(name, suite, arguments.tasks, arguments.algorithms, arguments.seeds)
    if arguments.list:
        for cell in cells:
            say(console, f"{cell_state(cell, arguments.results):8}  {cell}")
        return 0
    work = (arguments.work_dir or RUNS / name).absolute()
    backend = _backend(arguments)
    try:
        failed = run_grid(cells, arguments.results, work, backend, console)
    except Interrupted:
        say(console, "stopped, and saved; the same command goes on")
        return INTERRUPTED
    say(console, f"done: results are in {arguments.results / name}; {len(failed)} cells failed")
    return FAILED if failed else 0


def _backend(arguments: argparse.Namespace) -> Backend:
    jobs = arguments.jobs or os.cpu_count() or 1
    if _on_ray(arguments):
        from icnn_rl.agents.cluster.tasks import RayBackend

        return RayBackend(arguments.address, jobs)
    from icnn_rl.agents.benchmark.grid import LocalBackend

    return LocalBackend(jobs)


def _on_ray(arguments: argparse.Namespace) -> bool:
    ray: bool = arguments.backend == "ray"
    if arguments.address is not None and not ray:
        raise ValueError("--address is for --backend ray")
    return ray


def report(arguments: argparse.Namespace, console: Console) -> int:
    """Write the report of a benchmark."""
    from icnn_rl.agents.benchmark.report import write_report
    from icnn_rl.agents.benchmark.suite import read_suite

    name, suite = read_suite(arguments.suite)
    out = arguments.out or RUNS / name / "report"
    write_report(name, suite, arguments.results, out)
    say(console, f"done: {out / 'report.md'}")
    return 0


def _require_at_least(least: int, option: str, number: int) -> None:
    if number < least:
        raise ValueError(f"{option} has to be at least {least}, not {number}")


def _is_fit(path: Path) -> bool:
    """Whether a folder is of a fit; an agent may be there without its configuration."""
    run = RunFolder(path)
    return run.config_file.is_file() and "experiment" in run.read_config()


def _refuse(arguments: argparse.Namespace, what: str, *options: str) -> None:
    for option in options:
        if getattr(arguments, option) is not None:
            raise ValueError(f"--{option} is not for {arguments.run}, which is {what}")


def list_presets(arguments: argparse.Namespace, console: Console) -> int:
    """List the presets and suites."""
    for command in ("train", "fit", "benchmark"):
        say(console, f"icnn-rl {command}")
        for name, description in presets(command).items():
            say(console, f"  {name:24} {description}")
    return 0


def _carry_out(action: Callable[[], None], run: Path, console: Console) -> int:
    try:
        action()
    except Interrupted:
        say(console, f"stopped, and saved; go on with: icnn-rl resume {run}")
        return INTERRUPTED
    say(console, f"done: everything is in {run}")
    return 0


def _announce_loading(console: Console) -> None:
    """Say what takes the first seconds, to somebody who waits."""
    if console.is_terminal:
        say(console, "loading stable-baselines3 and the task ...")


def say(console: Console, message: str) -> None:
    """Print a line as it is."""
    console.print(message, markup=False, highlight=False, soft_wrap=True)
