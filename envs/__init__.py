"""Gymnasium tasks whose optimum is known. Importing this package registers them.

``gymnasium.make("icnn_rl.envs:icnn_rl/LQR-v0")`` imports it by itself.
"""

from gymnasium.envs.registration import register

from icnn_rl.envs.allocation import Allocation
from icnn_rl.envs.battery import Battery
from icnn_rl.envs.bimodal import BimodalBandit, Slalom
from icnn_rl.envs.lqr import LQR
from icnn_rl.envs.task import Task, returns

__all__ = ["LQR", "Allocation", "Battery", "BimodalBandit", "Slalom", "Task", "returns"]

for _task, _steps in (
    (LQR, 100),
    (Battery, None),
    (Allocation, 100),
    (BimodalBandit, None),
    (Slalom, None),
):
    register(
        f"icnn_rl/{_task.__name__}-v0",
        f"{_task.__module__}:{_task.__name__}",
        max_episode_steps=_steps,
    )
