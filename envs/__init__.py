"""Gymnasium tasks whose optimum is known. Importing this package registers them.

``gymnasium.make("icnn_rl.envs:icnn_rl/LQR-v0")`` imports it by itself.
"""

from gymnasium.envs.registration import register

from icnn_rl.envs.allocation import Allocation
from icnn_rl.envs.battery import Battery
from icnn_rl.envs.bimodal import BimodalBandit
from icnn_rl.envs.lqr import LQR
from icnn_rl.envs.returns import returns
from icnn_rl.envs.slalom import Slalom

__all__ = ["LQR", "Allocation", "Battery", "BimodalBandit", "Slalom", "returns"]

register("icnn_rl/LQR-v0", entry_point="icnn_rl.envs.lqr:LQR", max_episode_steps=100)
register("icnn_rl/Battery-v0", entry_point="icnn_rl.envs.battery:Battery")
register("icnn_rl/BimodalBandit-v0", entry_point="icnn_rl.envs.bimodal:BimodalBandit")
register("icnn_rl/Slalom-v0", entry_point="icnn_rl.envs.slalom:Slalom")
register(
    "icnn_rl/Allocation-v0",
    entry_point="icnn_rl.envs.allocation:Allocation",
    max_episode_steps=100,
)
