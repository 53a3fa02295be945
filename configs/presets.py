"""The presets: a folder a command, in it one YAML file for each, described by its first line."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path


def presets(command: str) -> dict[str, str]:
    """Name and description of every preset of a command: train, fit or benchmark."""
    return {
        path.stem: path.read_text("utf-8").partition("\n")[0].removeprefix("#").strip()
        for path in sorted(_folder(command).glob("*.yaml"))
    }


def find_preset(name: str, command: str) -> Path:
    """The YAML file that ``name`` means: a preset of the command, or a path.

    Raises:
        ValueError: there is no such preset or file.
    """
    names = presets(command)
    if name in names:
        return _folder(command) / f"{name}.yaml"
    if name.endswith((".yaml", ".yml")):
        if Path(name).is_file():
            return Path(name)
        raise ValueError(f"the configuration file {name!r} does not exist")
    close = get_close_matches(name.lower(), names, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "`icnn-rl presets` lists them."
    raise ValueError(f"there is no preset {name!r}; {hint}")


def _folder(command: str) -> Path:
    return Path(__file__).with_name(command)
