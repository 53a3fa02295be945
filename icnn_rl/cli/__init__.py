"""The command ``icnn-rl``: train agents, fit energies to data, resume and evaluate both."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from rich.console import Console

from icnn_rl.cli.arguments import parse
from icnn_rl.cli.commands import BAD_INPUT, FAILED, INTERRUPTED, say
from icnn_rl.runs.process import TaskError, sigterm_interrupts
from icnn_rl.runs.screen import unfailing_screen
from icnn_rl.runs.storage import brief


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
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)  # last, so that it hides nothing: for a user's tasks
    try:
        with sigterm_interrupts():
            arguments = parse(argv)
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


class _LogHandler(logging.Handler):
    """Shows log records as lines, above the progress bar if there is one."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO)
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        say(self.console, prefix + record.getMessage())
