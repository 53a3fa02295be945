"""The console script ``icnn-rl``, which answers before PyTorch is loaded."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command; returns the exit code."""
    word = "loading PyTorch ..." if sys.stderr and sys.stderr.isatty() else ""
    try:
        print(word, end="\r" * bool(word), file=sys.stderr, flush=True)
        from icnn_rl.cli import main as command
    except KeyboardInterrupt:
        print("icnn-rl: interrupted", file=sys.stderr)
        return 130
    print(" " * len(word), end="\r" * bool(word), file=sys.stderr, flush=True)
    return command()
