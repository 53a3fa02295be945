"""Gymnasium tasks whose optimum is known. Importing this package registers them.

``gymnasium.make("icnn_rl.envs:icnn_rl/LQR-v0")`` imports it by itself.
"""

from gymnasium.envs.registration import register

from icnn_rl.envs.lqr import LQR

__all__ = ["LQR"]

register("icnn_rl/LQR-v0", entry_point="icnn_rl.envs.lqr:LQR", max_episode_steps=100)
