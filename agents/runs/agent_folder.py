"""The folder of an agent's training run: what is where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from icnn_rl.agents.runs.output_formats import STEPS
from icnn_rl.runs.run_folder import RunFolder
from icnn_rl.runs.tables import Table

PACKAGES = (
    "icnn-rl",
    "torch",
    "numpy",
    "gymnasium",
    "mujoco",
    "stable-baselines3",
    "sb3-contrib",
)


@dataclass(frozen=True)
class AgentFolder(RunFolder):
    """A run's files.

    Args:
        path: the folder.
    """

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    def saved(self) -> list[Path]:
        """The checkpoints, oldest first; not one that was being written when the run was killed."""
        paths = self.checkpoints.glob("*.safetensors")
        return sorted(path for path in paths if path.stem.isdigit())

    @property
    def tensorboard(self) -> Path:
        """Folder of the TensorBoard events."""
        return self.path / "tensorboard"

    @property
    def archive(self) -> Path:
        """The agent as stable-baselines3's archive."""
        return self.path / "model.zip"

    @property
    def normalizer(self) -> Path:
        """The normalisation of observations and rewards as stable-baselines3 pickles it."""
        return self.path / "vecnormalize.pkl"

    @property
    def curve(self) -> Path:
        """Picture of the learning curve."""
        return self.path / "learning_curve.png"

    @property
    def video(self) -> Path:
        """Video of the trained agent."""
        return self.path / "video.mp4"

    def progress(self) -> Table:
        """What was logged while training, as it is now."""
        return Table(self.path / "progress.csv", STEPS)

    def evaluations(self) -> Table:
        """The evaluations, as they are now."""
        return Table(self.path / "evaluations.csv", "steps")
