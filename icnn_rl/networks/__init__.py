"""Networks: parameters → convex functions."""

from icnn_rl.networks.activations import ACTIVATIONS, Activation, activation
from icnn_rl.networks.conditioned import ConditionedNetwork
from icnn_rl.networks.conv_ficnn import ConvFICNN
from icnn_rl.networks.conv_picnn import ConvPICNN
from icnn_rl.networks.convolution import ConditionedConvolution
from icnn_rl.networks.encoder import Encoder
from icnn_rl.networks.ficnn import FICNN
from icnn_rl.networks.layers import AveragePool, Conv, Dense, MaxPool
from icnn_rl.networks.picnn import PICNN
from icnn_rl.networks.quadratic import ConditionedQuadratic, QuadraticNetwork

__all__ = [
    "ACTIVATIONS",
    "FICNN",
    "PICNN",
    "Activation",
    "AveragePool",
    "ConditionedConvolution",
    "ConditionedNetwork",
    "ConditionedQuadratic",
    "Conv",
    "ConvFICNN",
    "ConvPICNN",
    "Dense",
    "Encoder",
    "MaxPool",
    "QuadraticNetwork",
    "activation",
]
