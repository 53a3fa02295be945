"""A video of a trained agent, recorded in a separate process.

Drawing without a display needs a graphics library, which may be absent or crash its process. So
each library is tried in a fresh process, and none can end a training run.

Run as ``python -m icnn_rl.agents.runs.video RUN VIDEO SEED``.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import gymnasium as gym
import imageio_ffmpeg
import numpy as np
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from icnn_rl.agents.runs.environments import make_environment
from icnn_rl.agents.runs.evaluation import EVALUATION_SEED, greedy_actions
from icnn_rl.agents.runs.portable import load_portable, read_description
from icnn_rl.runs.storage import replacing

_MAX_SECONDS = 15
_FRAMES_PER_SECOND = 30  # approximately
_TIMEOUT_SECONDS = 300  # for one graphics library

logger = logging.getLogger(__name__)


def record_video(folder: Path, path: Path, seed: int = EVALUATION_SEED) -> Path | None:
    """Film one episode of the agent in a folder; a failure is logged, not raised.

    Args:
        folder: of the agent, as ``save_portable`` wrote it.
        path: of the video, MP4.
        seed: of the episode.

    Returns:
        The video, or None if the task or the machine cannot draw.
    """
    env = make_environment(read_description(folder).env)
    env.close()
    if "rgb_array" not in env.metadata.get("render_modes", []):
        logger.info("no video: the task does not render")
        return None
    for library in _graphics_libraries():
        environ = os.environ | {"SDL_VIDEODRIVER": "dummy", "PYGAME_HIDE_SUPPORT_PROMPT": "1"}
        if library is not None:
            environ["MUJOCO_GL"] = library
        command = [sys.executable, "-m", __name__, str(folder), str(path), str(seed)]
        try:
            done = subprocess.run(
                command,
                env=environ,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            reason = f"it took more than {_TIMEOUT_SECONDS} s"
            continue
        if done.returncode == 0:
            return path
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    logger.warning("no video: this machine cannot draw the task (%s)", reason)
    return None


def _graphics_libraries() -> list[str | None]:
    """Values of MUJOCO_GL to try in turn; None leaves the choice to MuJoCo."""
    if os.environ.get("MUJOCO_GL") or sys.platform != "linux":
        return [None]
    return ["egl", "osmesa", None] if os.environ.get("DISPLAY") else ["egl", "osmesa"]


def _film(folder: Path, path: Path, seed: int) -> None:
    model, config = load_portable(folder, read_description(folder).env.id)
    env = make_environment(config.env, render_mode="rgb_array")
    speed = env.metadata.get("render_fps", _FRAMES_PER_SECOND)
    stride = max(1, round(speed / _FRAMES_PER_SECOND))  # steps a frame
    frames = _frames(model, env, seed, stride, round(_MAX_SECONDS * speed / stride))
    first = next(frames)
    with replacing(path) as temporary:
        size = (first.shape[1], first.shape[0])
        writer = imageio_ffmpeg.write_frames(
            str(temporary), size, fps=speed / stride, macro_block_size=2
        )
        writer.send(None)
        for frame in chain([first], frames):
            writer.send(frame)
        writer.close()
    env.close()


def _frames(
    model: OffPolicyAlgorithm, env: gym.Env[Any, Any], seed: int, stride: int, count: int
) -> Iterator[np.ndarray]:
    observation, _ = env.reset(seed=seed)
    over = False
    for _ in range(count):
        yield np.ascontiguousarray(env.render())
        if over:
            return
        for _ in range(stride):
            action = greedy_actions(model, [observation])[0]
            observation, _, terminated, truncated, _ = env.step(action)
            if over := terminated or truncated:
                break


if __name__ == "__main__":
    _film(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
