"""Which commit the installed code is of."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]  # the checkout, if the package is installed from one in place
CODE = ("agents", "configs", "envs", "icnn_rl")


def installed_commit() -> str:
    """The commit, ``-modified`` if the code differs from it; ``unknown`` outside a checkout."""
    try:
        _git("ls-files", "--error-unmatch", str(Path(__file__)))  # not just some checkout around it
        modified = _git("status", "--porcelain", "--", *CODE)
        return _git("rev-parse", "HEAD") + ("-modified" if modified else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
