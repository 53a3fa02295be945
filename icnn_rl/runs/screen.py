"""The screen, which may be closed, full or unable to show a character; no run ends by that."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

_FAILURES = (OSError, ValueError)  # ValueError: the stream is closed


class _Unfailing:
    """A text stream that swallows its failures.

    Args:
        stream: standard output or error.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write what the stream can show; other characters become question marks."""
        encoding = self._stream.encoding or "utf-8"
        with suppress(*_FAILURES):
            self._stream.write(text.encode(encoding, "replace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        with suppress(*_FAILURES):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def unfailing_screen() -> Iterator[None]:
    """Within, writing to standard output or error never raises."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (stream and _Unfailing(stream) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in filter(None, before):
            _empty(stream)


def _empty(stream: TextIO) -> None:
    """Flush a stream; where that fails, so that it does not fail again when Python exits."""
    try:
        stream.flush()
    except _FAILURES:
        with suppress(*_FAILURES):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
