"""What can be written on the command line."""

from __future__ import annotations

import argparse
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import icnn_rl
from icnn_rl.cli import commands
from icnn_rl.runs.configuration import config_parser, presets

TRAINS = ("train", "fit", "tune")  # commands that take the keys of a configuration


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


Commands: TypeAlias = "argparse._SubParsersAction[_Parser]"


def parse(argv: list[str]) -> argparse.Namespace:
    """The arguments; of commands that train, the keys of the configuration in ``overrides``."""
    parser = command_parser()
    # Before argparse sees it, for which the value of an unknown option would be a preset too.
    trains = bool(argv) and argv[0] in TRAINS
    preset = argv.pop(1) if trains and argv[1:] and argv[1][:1] != "-" else None
    arguments, overrides = parser.parse_known_args(argv)
    command = subparsers(parser).get(arguments.command, parser)
    options = [option for option in command._option_string_actions if option.startswith("--")]
    if not trains and overrides:
        close = get_close_matches(overrides[0].partition("=")[0], options, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"unrecognized arguments: {' '.join(overrides)}{hint}")
    arguments.preset, arguments.overrides = preset, overrides
    arguments.options = [option.removeprefix("--") for option in options]
    if trains and arguments.help:
        _print_help(arguments.command, command)
        raise SystemExit(0)
    return arguments


def command_parser() -> argparse.ArgumentParser:
    """The parser of all commands, without the keys of configurations."""
    parser = _Parser(
        prog="icnn-rl",
        description="Convex energies, and agents that have no actor.",
        allow_abbrev=False,
    )
    version = f"icnn-rl {icnn_rl.__version__}"
    parser.add_argument("--version", action="version", version=version)
    added: Commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_train_and_fit(added)
    _add_resume_and_evaluate(added)
    _add_benchmark_and_report(added)
    listing = _add(added, "presets", "list the presets and suites")
    listing.set_defaults(execute=commands.list_presets)
    completion = _add(added, "completion", "print a script that completes this command in a shell")
    completion.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    completion.set_defaults(execute=_complete)
    return parser


def subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of the commands, by name."""
    (added,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return dict(added.choices)


def _add(added: Commands, name: str, what: str, **kwargs: Any) -> _Parser:
    return added.add_parser(name, help=what, description=what, allow_abbrev=False, **kwargs)


def _add_train_and_fit(added: Commands) -> None:
    usage = "icnn-rl {} [PRESET|FILE.yaml] {}[--run-dir DIR] [--track] [--KEY VALUE]"
    for name, what, own, execute in (
        ("train", "train an agent", "[--env ID] [--steps N] ", commands.train),
        ("fit", "fit an energy to data", "", commands.fit),
    ):
        command = _add(added, name, what, usage=usage.format(name, own), add_help=False)
        if name == "train":
            _add_task(command)
            _add_backend(command, "where an agent's environments are stepped")
        command.add_argument("--run-dir", type=Path, metavar="DIR", help="folder for all files")
        _add_track(command)
        command.add_argument("-h", "--help", action="store_true", help="show this, and every KEY")
        command.set_defaults(execute=execute)

    what = "search for the keys with the largest return"
    usage = "icnn-rl tune [PRESET|FILE.yaml] [--env ID] [--steps N] [--trials N] [--KEY VALUE]"
    tune = _add(added, "tune", what, usage=usage, add_help=False)
    _add_task(tune)
    trials, seeds = "how many in total (default: 50)", "of the runs of a trial (default: 0 1 2)"
    tune.add_argument("--trials", type=_number, metavar="N", default=50, help=trials)
    tune.add_argument("--seeds", nargs="+", type=int, metavar="SEED", default=[0, 1, 2], help=seeds)
    tune.add_argument("--jobs", type=_number, metavar="N", help="runs at a time (default: all)")
    search = "what to try for which key (default: the search of the algorithm)"
    tune.add_argument("--search", type=Path, metavar="FILE.yaml", help=search)
    work = f"of the study, which goes on if it is there ({commands.STUDIES}/NAME)"
    tune.add_argument("--work-dir", type=Path, metavar="DIR", help=work)
    storage = "of the study, as Optuna names it (default: study.db in the folder)"
    tune.add_argument("--storage", metavar="URL", help=storage)
    _add_track(tune)
    tune.add_argument("-h", "--help", action="store_true", help="show this, and every KEY")
    tune.set_defaults(execute=commands.tune)


def _print_help(name: str, command: argparse.ArgumentParser) -> None:
    command.print_help()
    own = {option for action in command._actions for option in action.option_strings}
    keys = config_parser(commands.kind(name), prog="icnn-rl", usage=argparse.SUPPRESS)
    for action in keys._actions:
        if not own.isdisjoint(action.option_strings):
            action.help = argparse.SUPPRESS
    keys.print_help()


def _add_resume_and_evaluate(added: Commands) -> None:
    resume = _add(added, "resume", "go on with a run that was stopped")
    resume.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    resume.add_argument("--steps", type=_number, help="new total of steps, of an agent")
    resume.add_argument("--epochs", type=_number, help="new total of epochs, of a fit")
    resume.add_argument("--device", help="where the networks live from here on")
    _add_track(resume)
    _add_backend(resume, "where an agent's environments are stepped")
    resume.set_defaults(execute=commands.resume)

    evaluate = _add(added, "evaluate", "play with a trained agent, or measure a fit")
    evaluate.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    agent = evaluate.add_argument_group("options for an agent")
    agent.add_argument("--episodes", type=_number, help="how many (default: 20)")
    agent.add_argument("--seed", type=_number, help="of the first (default: 0)")
    own = "its task MODULE:NAME; needed where that is in a module of your own, which is imported"
    agent.add_argument("--env", metavar="ID", help=own)
    _add_backend(agent, "where episodes are played")
    agent.add_argument("--video", type=Path, metavar="FILE.mp4", help="film an episode")
    evaluate.set_defaults(execute=commands.evaluate)


def _add_benchmark_and_report(added: Commands) -> None:
    benchmark = _add(added, "benchmark", "run a grid of tasks, algorithms and seeds")
    benchmark.add_argument("suite", metavar="SUITE|FILE.yaml", help="what to run")
    benchmark.add_argument("--tasks", nargs="+", metavar="ID", help="these alone")
    benchmark.add_argument("--algorithms", nargs="+", metavar="NAME", help="these alone")
    benchmark.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help="these instead")
    _add_jobs(benchmark)
    benchmark.add_argument("--list", action="store_true", help="show what is there, run nothing")
    runs = f"for runs ({commands.RUNS}/SUITE)"
    benchmark.add_argument("--work-dir", type=Path, metavar="DIR", help=runs)
    _add_backend(benchmark, "where cells run")
    benchmark.set_defaults(execute=commands.benchmark)

    report = _add(added, "report", "tables and figures of a benchmark's results")
    report.add_argument("suite", metavar="SUITE|FILE.yaml", help="what was run")
    out = f"for the report ({commands.RUNS}/SUITE/report)"
    report.add_argument("--out", type=Path, metavar="DIR", help=out)
    report.set_defaults(execute=commands.report)
    for command in (benchmark, report):
        what = f"folder of the results (default: {commands.RESULTS})"
        command.add_argument(
            "--results", type=Path, metavar="DIR", default=commands.RESULTS, help=what
        )


def _add_task(command: argparse.ArgumentParser) -> None:
    task = "a Gymnasium task with continuous actions; MODULE:NAME imports the module first"
    command.add_argument("--env", metavar="ID", help=task)
    command.add_argument("--steps", metavar="N", help="the same as --training.steps")


def _add_jobs(command: argparse.ArgumentParser) -> None:
    command.add_argument("--jobs", type=_number, metavar="N", help="at a time (default: cores)")


def _add_track(command: argparse.ArgumentParser) -> None:
    command.add_argument("--track", action="store_true", help="send metrics to Weights & Biases")


def _add_backend(command: argparse._ActionsContainer, what: str) -> None:
    where = "this machine or a Ray cluster (default: local)"
    command.add_argument("--backend", choices=("local", "ray"), help=f"{what}: {where}")
    command.add_argument("--address", help="of a Ray cluster (default: one on this machine)")


def _number(text: str) -> int:
    """An integer, also as ``1e5``."""
    value = float(text)
    if not value.is_integer():
        raise argparse.ArgumentTypeError(f"expected an integer, got {text}")
    return int(value)


def _complete(arguments: argparse.Namespace, console: object) -> int:
    """Print the completion script of a shell, which knows all presets and keys."""
    try:
        import shtab
    except ImportError:
        raise ValueError("completion needs shtab: pip install 'icnn-rl[completion]'") from None
    parser = command_parser()
    for name, command in subparsers(parser).items():
        if name in TRAINS:
            listed = presets("fit" if name == "fit" else "train")
            command.add_argument("preset", nargs="?", choices=list(listed))
            own = command._option_string_actions
            for action in config_parser(commands.kind(name))._actions:
                for option in action.option_strings:
                    if option not in own and option.startswith("--"):
                        command.add_argument(option)
    print(shtab.complete(parser, arguments.shell))
    return 0
