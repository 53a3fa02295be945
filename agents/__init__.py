"""Reinforcement learning on convex critics, as stable-baselines3 algorithms."""

from icnn_rl.agents.concave_q import ConcaveQ
from icnn_rl.agents.solver import SolverSettings

__all__ = ["ConcaveQ", "SolverSettings"]
