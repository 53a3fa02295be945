"""The command ``icnn-rl``: train agents, fit energies to data, resume and evaluate both."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console

from icnn_rl.runs.configuration import config_parser, find_preset, parse_config, presets
from icnn_rl.runs.folder import RunFolder, new_folder
from icnn_rl.runs.process import Interrupted, TaskError, sigterm_interrupts
from icnn_rl.runs.screen import unfailing_screen
from icnn_rl.runs.storage import brief

if TYPE_CHECKING:
    from icnn_rl.agents.benchmark.grid import Backend
    from icnn_rl.agents.runs.environments import Vectorize

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130  # exit codes
RUNS, RESULTS = Path("runs/benchmark"), Path("benchmarks/results")  # of benchmarks, by default


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code.

    It is 0, 1 if the task's code or cells of a benchmark failed, 2 for bad input, 130 if it was
    interrupted.
    """
    with unfailing_screen():
        return _main(list(sys.argv[1:] if argv is None else argv))


def _main(argv: list[str]) -> int:
    console = Console()
    log = logging.getLogger("icnn_rl")
    log.handlers = [_LogHandler(console)]
    log.setLevel(logging.INFO)
    try:
        with sigterm_interrupts():
            arguments = _parse(argv)
            exit_code: int = arguments.execute(arguments, console)
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"icnn-rl: {brief(error, 1000)}", file=sys.stderr)
        return BAD_INPUT
    except TaskError as error:
        print(f"icnn-rl: {error}:\n{error.trace}", end="", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("icnn-rl: interrupted", file=sys.stderr)
        return INTERRUPTED
    return exit_code


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def _parse(argv: list[str]) -> argparse.Namespace:
    """The arguments; of ``train`` and ``fit`` the keys of the configuration in ``overrides``."""
    parser = _Parser(prog="icnn-rl", description="Convex energies, and agents that have no actor.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_train_and_fit(commands)
    _add_resume_and_evaluate(commands)
    _add_benchmark_and_report(commands)
    listing = commands.add_parser("presets", help="list the presets and suites")
    listing.set_defaults(execute=_presets)

    # Before argparse sees it, for which the value of an unknown option would be a preset too.
    begins = bool(argv) and argv[0] in ("train", "fit")
    preset = argv.pop(1) if begins and argv[1:] and argv[1][:1] != "-" else None
    arguments, overrides = parser.parse_known_args(argv)
    if not begins and overrides:
        raise ValueError(f"unrecognized arguments: {' '.join(overrides)}")
    arguments.preset, arguments.overrides = preset, overrides
    if begins and arguments.help:
        _print_help(arguments.command, commands.choices[arguments.command])
        raise SystemExit(0)
    return arguments


def _add_train_and_fit(commands: argparse._SubParsersAction[_Parser]) -> None:
    usage = "icnn-rl {} [PRESET|FILE.yaml] {}[--run-dir DIR] [--track] [--KEY VALUE]"
    for name, what, own, execute in (
        ("train", "train an agent", "[--env ID] ", _train),
        ("fit", "fit an energy to data", "", _fit),
    ):
        command = commands.add_parser(
            name, help=what, usage=usage.format(name, own), allow_abbrev=False, add_help=False
        )
        if name == "train":
            task = "a Gymnasium task with continuous actions"
            command.add_argument("--env", metavar="ID", help=task)
            _add_backend(command, "where an agent's environments are stepped")
        command.add_argument("--run-dir", type=Path, metavar="DIR", help="folder for all files")
        _add_track(command)
        command.add_argument("-h", "--help", action="store_true", help="show this, and every KEY")
        command.set_defaults(execute=execute)


def _print_help(name: str, command: argparse.ArgumentParser) -> None:
    command.print_help()
    own = {option for action in command._actions for option in action.option_strings}
    keys = config_parser(_kind(name), prog="icnn-rl", usage=argparse.SUPPRESS)
    for action in keys._actions:
        if not own.isdisjoint(action.option_strings):
            action.help = argparse.SUPPRESS
    keys.print_help()


def _add_resume_and_evaluate(commands: argparse._SubParsersAction[_Parser]) -> None:
    resume = commands.add_parser("resume", help="go on with a run that was stopped")
    resume.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    resume.add_argument("--steps", type=int, help="new total of steps, of an agent")
    resume.add_argument("--epochs", type=int, help="new total of epochs, of a fit")
    resume.add_argument("--device", help="where the networks live from here on")
    _add_track(resume)
    _add_backend(resume, "where an agent's environments are stepped")
    resume.set_defaults(execute=_resume)

    evaluate = commands.add_parser("evaluate", help="play with a trained agent, or measure a fit")
    evaluate.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    agent = evaluate.add_argument_group("options for an agent")
    agent.add_argument("--episodes", type=int, help="how many (default: 20)")
    agent.add_argument("--seed", type=int, help="of the first (default: 0)")
    agent.add_argument("--env", metavar="ID", help="the task, if it is in a module of its own")
    _add_backend(agent, "where episodes are played")
    agent.add_argument("--video", type=Path, metavar="FILE.mp4", help="film an episode")
    evaluate.set_defaults(execute=_evaluate)


def _add_benchmark_and_report(commands: argparse._SubParsersAction[_Parser]) -> None:
    benchmark = commands.add_parser("benchmark", help="run a grid of tasks, algorithms and seeds")
    benchmark.add_argument("suite", metavar="SUITE|FILE.yaml", help="what to run")
    benchmark.add_argument("--tasks", nargs="+", metavar="ID", help="these alone")
    benchmark.add_argument("--algorithms", nargs="+", metavar="NAME", help="these alone")
    benchmark.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help="these instead")
    benchmark.add_argument("--jobs", type=int, metavar="N", help="at a time (default: cores)")
    benchmark.add_argument("--list", action="store_true", help="show what is there, run nothing")
    benchmark.add_argument("--work-dir", type=Path, metavar="DIR", help=f"for runs ({RUNS}/SUITE)")
    _add_backend(benchmark, "where cells run")
    benchmark.set_defaults(execute=_benchmark)

    report = commands.add_parser("report", help="tables and figures of a benchmark's results")
    report.add_argument("suite", metavar="SUITE|FILE.yaml", help="what was run")
    out = f"for the report ({RUNS}/SUITE/report)"
    report.add_argument("--out", type=Path, metavar="DIR", help=out)
    report.set_defaults(execute=_report)
    for command in (benchmark, report):
        what = f"folder of the results (default: {RESULTS})"
        command.add_argument("--results", type=Path, metavar="DIR", default=RESULTS, help=what)


def _add_track(command: argparse.ArgumentParser) -> None:
    command.add_argument("--track", action="store_true", help="send metrics to Weights & Biases")


def _add_backend(command: argparse._ActionsContainer, what: str) -> None:
    where = "this machine or a Ray cluster (default: local)"
    command.add_argument("--backend", choices=("local", "ray"), help=f"{what}: {where}")
    command.add_argument("--address", help="of a Ray cluster (default: one on this machine)")


def _train(arguments: argparse.Namespace, console: Console) -> int:
    if arguments.env is not None:
        arguments.overrides.insert(0, f"--env.id={arguments.env}")
    config, preset = _config(arguments)

    from icnn_rl.agents.runs.training import train

    vectorize = _vectorize(arguments)
    with _folder(arguments, preset or config.env.id, config.seed) as run:
        return _carry_out(lambda: train(config, run, console, vectorize), run, console)


def _folder(arguments: argparse.Namespace, name: str, seed: int) -> AbstractContextManager[Path]:
    chosen: Path | None = arguments.run_dir
    return new_folder(name, seed) if chosen is None else nullcontext(chosen)


def _vectorize(arguments: argparse.Namespace) -> Vectorize:
    """What puts the environments of an agent side by side."""
    if _on_ray(arguments):
        from icnn_rl.agents.cluster.environments import RayVecEnv

        return lambda makers: RayVecEnv(makers, arguments.address, os.cpu_count() or 1)
    from stable_baselines3.common.vec_env import DummyVecEnv

    return DummyVecEnv


def _fit(arguments: argparse.Namespace, console: Console) -> int:
    config, preset = _config(arguments)

    from icnn_rl.experiments.fitting import fit

    with _folder(arguments, preset or config.experiment, config.seed) as run:
        return _carry_out(lambda: fit(config, run, console), run, console)


def _kind(command: str) -> type[Any]:
    """The configuration of a command."""
    if command == "fit":
        from icnn_rl.experiments.config import FitConfig

        return FitConfig
    from icnn_rl.agents.runs.config import Config

    return Config


def _config(arguments: argparse.Namespace) -> tuple[Any, str | None]:
    """The configuration that a command line asks for, and the name of its preset."""
    name, keys = None, ["--track=true"] if arguments.track else []
    if arguments.preset is not None:
        path = find_preset(arguments.preset, arguments.command)
        name, keys = path.stem, [f"--config={path}", *keys]
    keys += arguments.overrides
    config = parse_config(_kind(arguments.command), keys)
    if not keys:
        raise ValueError(
            "name a preset or a YAML file; "
            f"`icnn-rl {arguments.command} --help` says what else can be given"
        )
    return config, name


def _resume(arguments: argparse.Namespace, console: Console) -> int:
    run, track = arguments.run, arguments.track
    if _is_fit(run):
        _refuse(arguments, "a fit", "steps", "backend", "address")

        from icnn_rl.experiments import fitting

        return _carry_out(
            lambda: fitting.resume(run, console, arguments.epochs, track, arguments.device),
            run,
            console,
        )

    _refuse(arguments, "no fit", "epochs")

    from icnn_rl.agents.runs import training

    steps, vectorize = arguments.steps, _vectorize(arguments)
    device = arguments.device
    return _carry_out(
        lambda: training.resume(run, console, steps, track, vectorize, device), run, console
    )


def _evaluate(arguments: argparse.Namespace, console: Console) -> int:
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

    from icnn_rl.agents.runs.environments import make_environment
    from icnn_rl.agents.runs.evaluation import evaluate
    from icnn_rl.agents.runs.portable import load_portable
    from icnn_rl.agents.runs.video import record_video

    model, config = load_portable(arguments.run, arguments.env)
    if _on_ray(arguments):
        from icnn_rl.agents.cluster.tasks import evaluate_remotely

        evaluation = evaluate_remotely(
            arguments.run, config.env.id, episodes, seed, arguments.address, os.cpu_count() or 1
        )
    else:
        training = replace(config.training, evaluation_episodes=episodes)
        evaluation = evaluate(model, lambda: make_environment(config.env), training, seed)
    _say(console, f"{config.env.id}: return {evaluation} in {episodes} episodes")
    if arguments.video is not None:
        record_video(arguments.run, arguments.video, seed)
    return 0


def _benchmark(arguments: argparse.Namespace, console: Console) -> int:
    if arguments.jobs is not None:
        _require_at_least(1, "--jobs", arguments.jobs)

    from icnn_rl.agents.benchmark.grid import cell_state, run_grid
    from icnn_rl.agents.benchmark.suite import read_suite, suite_cells

    name, suite = read_suite(arguments.suite)
    cells = suite_cells(name, suite, arguments.tasks, arguments.algorithms, arguments.seeds)
    if arguments.list:
        for cell in cells:
            _say(console, f"{cell_state(cell, arguments.results):8}  {cell}")
        return 0
    work = (arguments.work_dir or RUNS / name).absolute()
    backend = _backend(arguments)
    try:
        failed = run_grid(cells, arguments.results, work, backend, console)
    except Interrupted:
        _say(console, "stopped, and saved; the same command goes on")
        return INTERRUPTED
    _say(console, f"done: results are in {arguments.results / name}; {len(failed)} cells failed")
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


def _report(arguments: argparse.Namespace, console: Console) -> int:
    from icnn_rl.agents.benchmark.report import write_report
    from icnn_rl.agents.benchmark.suite import read_suite

    name, suite = read_suite(arguments.suite)
    out = arguments.out or RUNS / name / "report"
    write_report(name, suite, arguments.results, out)
    _say(console, f"done: {out / 'report.md'}")
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


def _presets(arguments: argparse.Namespace, console: Console) -> int:
    for command in ("train", "fit", "benchmark"):
        _say(console, f"icnn-rl {command}")
        for name, description in presets(command).items():
            _say(console, f"  {name:24} {description}")
    return 0


def _carry_out(action: Callable[[], None], run: Path, console: Console) -> int:
    try:
        action()
    except Interrupted:
        _say(console, f"stopped, and saved; go on with: icnn-rl resume {run}")
        return INTERRUPTED
    _say(console, f"done: everything is in {run}")
    return 0


def _say(console: Console, message: str) -> None:
    console.print(message, markup=False, highlight=False, soft_wrap=True)


class _LogHandler(logging.Handler):
    """Shows log records as lines, above the progress bar if there is one."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO)
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        _say(self.console, prefix + record.getMessage())


if __name__ == "__main__":
    sys.exit(main())
