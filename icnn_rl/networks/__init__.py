"""Networks: parameters → convex functions."""

from icnn_rl.networks.activations import ACTIVATIONS, Activation, activation
from icnn_rl.networks.conditioned import ConditionedNetwork
from icnn_rl.networks.ficnn import FICNN
from icnn_rl.networks.picnn import PICNN

__all__ = ["ACTIVATIONS", "FICNN", "PICNN", "Activation", "ConditionedNetwork", "activation"]
