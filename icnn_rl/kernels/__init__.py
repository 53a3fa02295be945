"""Compiled numerics, private to the core: what solvers and sets call sample by sample.

Here stand the numbers that several forms of one method share; importing them compiles nothing.
"""

ROUNDING = 8.0  # units in the last place allowed for in a value computed in the function's dtype

# Newton's method, in compiled code, in tensors and as a GPU kernel.
DECREASE = 1e-4  # share of the model's decrease that a step must bring (Armijo)
RIDGE = 1e-9  # added to the Hessian's diagonal, relative to its mean
LENGTHS = 3  # of a Newton step on a device, each a quarter of the one before

ACTIVATIONS = ("relu", "leaky_relu", "softplus", "elu", "squareplus")
"""A network's activation travels to kernels as its place in this list."""
RELU, LEAKY_RELU, SOFTPLUS, ELU, SQUAREPLUS = range(len(ACTIVATIONS))
