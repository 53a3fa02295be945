"""The command ``icnn-rl``: train, evaluate and resume agents."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from icnn_rl.configs import Config, config_parser, find_preset, parse_config, presets

BAD_INPUT, INTERRUPTED = 2, 130  # exit codes


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 2 for bad input, 130 if it was interrupted."""
    console = Console()
    log = logging.getLogger("icnn_rl")
    log.handlers = [_LogHandler(console)]
    log.setLevel(logging.INFO)
    try:
        arguments, overrides = _parse(list(sys.argv[1:] if argv is None else argv))
        match arguments.command:
            case "train":
                return _train(arguments, overrides, console)
            case "resume":
                return _resume(arguments, console)
            case "evaluate":
                return _evaluate(arguments, console)
            case _:
                return _presets(console)
    except (ValueError, OSError) as error:
        print(f"icnn-rl: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def _parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = _Parser(prog="icnn-rl", description="Convex critics, and agents that have no actor.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    train = commands.add_parser(
        "train",
        help="train an agent",
        usage="icnn-rl train [PRESET|FILE.yaml] [--env ID] [--run-dir DIR] [--track] [--KEY VALUE]",
        allow_abbrev=False,
        add_help=False,
    )
    train.add_argument("--env", metavar="ID", help="a Gymnasium task with continuous actions")
    train.add_argument("--run-dir", type=Path, metavar="DIR", help="folder for all files")
    train.add_argument("--track", action="store_true", help="send metrics to Weights & Biases")
    train.add_argument("-h", "--help", action="store_true", help="show this, and every KEY")

    resume = commands.add_parser("resume", help="go on with a run that was stopped")
    resume.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    resume.add_argument("--steps", type=int, help="new total of steps")
    resume.add_argument("--track", action="store_true", help="send metrics to Weights & Biases")

    evaluate = commands.add_parser("evaluate", help="play episodes with a trained agent")
    evaluate.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    evaluate.add_argument("--episodes", type=int, default=20, help="how many (default: 20)")
    evaluate.add_argument("--seed", type=int, default=0, help="of the first (default: 0)")
    evaluate.add_argument("--env", metavar="ID", help="the task, if it is in a module of its own")
    evaluate.add_argument("--video", type=Path, metavar="FILE.mp4", help="film an episode")

    commands.add_parser("presets", help="list the presets")

    # Before argparse sees it, for which the value of an unknown option would be a preset too.
    preset = argv.pop(1) if argv[:1] == ["train"] and argv[1:] and argv[1][0] != "-" else None
    arguments, overrides = parser.parse_known_args(argv)
    if arguments.command != "train" and overrides:
        raise ValueError(f"unrecognized arguments: {' '.join(overrides)}")
    if arguments.command == "train":
        if arguments.help:
            train.print_help()
            config_parser(Config, prog="icnn-rl train", usage=argparse.SUPPRESS).print_help()
            raise SystemExit(0)
        arguments.preset = preset
    return arguments, overrides


def _train(arguments: argparse.Namespace, overrides: list[str], console: Console) -> int:
    config, name = _config(arguments, overrides)

    from icnn_rl.agents.runs.agent_folder import AgentFolder
    from icnn_rl.agents.runs.training import train
    from icnn_rl.runs.run_folder import default_path
    from icnn_rl.runs.signals import Interrupted

    run = AgentFolder(arguments.run_dir or default_path(name, config.seed))
    try:
        train(config, run, console)
    except Interrupted:
        return _interrupted(run.path, console)
    return _finished(run.path, console)


def _config(arguments: argparse.Namespace, overrides: list[str]) -> tuple[Config, str]:
    """The configuration that a command line asks for, and a name for the run."""
    head = []
    name = arguments.env
    if arguments.preset is not None:
        path = find_preset(arguments.preset, "train")
        name = path.stem
        head.append(f"--config={path}")
    if arguments.env is not None:
        head.append(f"--env.id={arguments.env}")
    if arguments.track:
        head.append("--track=true")
    config = parse_config(Config, head + overrides)
    if not head and not overrides:
        raise ValueError("name a preset or a YAML file, or a task with --env")
    return config, name or config.env.id


def _resume(arguments: argparse.Namespace, console: Console) -> int:
    from icnn_rl.agents.runs.agent_folder import AgentFolder
    from icnn_rl.agents.runs.training import resume
    from icnn_rl.runs.signals import Interrupted

    try:
        resume(AgentFolder(arguments.run), console, arguments.steps, arguments.track)
    except Interrupted:
        return _interrupted(arguments.run, console)
    return _finished(arguments.run, console)


def _evaluate(arguments: argparse.Namespace, console: Console) -> int:
    if arguments.episodes < 1:
        raise ValueError(f"--episodes has to be at least 1, not {arguments.episodes}")

    from icnn_rl.agents.runs.environments import make_environment
    from icnn_rl.agents.runs.evaluation import evaluate
    from icnn_rl.agents.runs.portable import load_portable
    from icnn_rl.agents.runs.video import record_video

    model, config = load_portable(arguments.run, arguments.env)
    evaluation = evaluate(
        model, lambda: make_environment(config.env), arguments.episodes, arguments.seed
    )
    _say(console, f"{config.env.id}: return {evaluation} in {arguments.episodes} episodes")
    if arguments.video is not None:
        record_video(arguments.run, arguments.video, arguments.seed)
    return 0


def _presets(console: Console) -> int:
    for command in ("train", "fit"):
        _say(console, f"icnn-rl {command}")
        for name, description in presets(command).items():
            _say(console, f"  {name:24} {description}")
    return 0


def _finished(run: Path, console: Console) -> int:
    _say(console, f"done: everything is in {run}")
    return 0


def _interrupted(run: Path, console: Console) -> int:
    _say(console, f"stopped, and saved; go on with: icnn-rl resume {run}")
    return INTERRUPTED


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
