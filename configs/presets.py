"""The presets: one YAML file beside this one for each, described by its first line."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path


def presets() -> dict[str, str]:
    """Name and description of every preset."""
    folder = Path(__file__).parent
    return {
        path.stem: path.read_text("utf-8").partition("\n")[0].removeprefix("#").strip()
        for path in sorted(folder.glob("*.yaml"))
    }


def find_preset(name: str) -> Path:
    """The YAML file that ``name`` means: a preset, or a path.

    Raises:
        ValueError: there is no such preset or file.
    """
    if name in presets():
        return Path(__file__).with_name(f"{name}.yaml")
    if name.endswith((".yaml", ".yml")):
        if Path(name).is_file():
            return Path(name)
        raise ValueError(f"the configuration file {name!r} does not exist")
    close = get_close_matches(name.lower(), presets(), n=1)
    hint = f"did you mean {close[0]!r}?" if close else "`icnn-rl presets` lists them."
    raise ValueError(f"there is no preset {name!r}; {hint}")
