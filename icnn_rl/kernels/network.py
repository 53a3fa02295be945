"""A narrow conditioned network, evaluated sample by sample in compiled code."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from icnn_rl.kernels import ELU, SOFTPLUS, SQUAREPLUS
from icnn_rl.kernels.compiling import compiled, inner
from icnn_rl.kernels.linear_algebra import row_dot

Array = npt.NDArray[Any]


class Network(NamedTuple):
    """The mean over members of an ensemble of y ↦ network(A y + b), plus a quadratic of y.

    All arrays have as many columns as the widest layer, so that one compiled function serves every
    depth and width, and two axes at most, which compile fastest.

    Attributes:
        activation: its place in ``ACTIVATIONS``.
        leak: the slope of the activation below 0.
        widths: of the hidden layers.
        members, groups: members of the ensemble; those equal modulo ``groups`` are averaged.
        weight_z, weight_y: rows in the order (layer, member, input).
        gate_z, bias: rows in the order (layer, member, sample).
        gate_y: rows in the order (member, sample, layer).
        A, b: maps of each function, or of all, ``(functions, n, dim)``; empty where there is none.
        gamma, center: quadratic terms γ/2 ‖y - center‖²; empty where there is none.
    """

    activation: int
    leak: np.floating[Any]
    widths: npt.NDArray[np.int64]
    members: int
    groups: int
    weight_z: Array
    weight_y: Array
    gate_z: Array
    gate_y: Array
    bias: Array
    A: Array
    b: Array
    gamma: Array
    center: Array


class Workspace(NamedTuple):
    """Room for the numbers of one function, of all its layers where an array has two axes."""

    t: Array
    z: Array
    slope: Array
    curvature: Array
    J: Array
    delta: Array
    carried: Array
    y: Array
    own: Array
    g: Array
    H: Array

    @classmethod
    def of(cls, network: Network) -> Workspace:
        """Room for a network's evaluations, one after the other."""
        hidden, n, width = len(network.widths), network.gate_y.shape[1], network.bias.shape[1]
        kind = network.bias.dtype
        return cls._make(
            (
                *np.empty((4, hidden, width), kind),
                np.empty((hidden * n, width), kind),
                *np.empty((2, width), kind),
                *np.empty((2, n), kind),
                np.empty(n),
                np.empty((n, n)),
            )
        )


def evaluate(
    network: Network,
    rows: Array,
    y: Array,
    lower: Array,
    upper: Array,
    hessians: bool,
    work: Workspace,
) -> tuple[Array, Array, Array, int]:
    """Values, gradients and Hessians of functions at points, rounded and kept inside bounds.

    Args:
        network: the functions.
        rows: which of them, ``(a,)``.
        y: where, ``(a, dim)``; they become points in the network's precision inside the bounds.
        lower, upper: bounds of all functions, ``(functions, dim)``.
        hessians: whether to compute Hessians; otherwise the array of them is empty.
        work: room for this network.

    Returns:
        Values ``(a,)``, gradients ``(a, dim)``, Hessians ``(a, dim, dim)``, and the first row whose
        value or gradient is not finite, or -1.
    """
    size, dim = y.shape
    value, gradient = np.empty(size), np.empty((size, dim))
    hessian = np.empty((size if hessians else 0, dim, dim))
    odd = _evaluate(network, rows, y, lower, upper, value, gradient, hessian, work)
    return value, gradient, hessian, odd


@inner
def _activate(activation, leak, k, size, t, z, slope, curvature):  # type: ignore[no-untyped-def]
    """σ(t), σ'(t) and σ''(t) in row k."""
    one = t.dtype.type(1)
    half = t.dtype.type(0.5)
    zero = t.dtype.type(0)
    if activation == SQUAREPLUS:
        for j in range(size):
            root = np.sqrt(t[k, j] * t[k, j] + one)
            part = half / (root + abs(t[k, j]))
            z[k, j] = max(t[k, j], zero) + part
            slope[k, j] = one - part / root if t[k, j] > 0 else part / root
            curvature[k, j] = half / (root * root * root)
    elif activation == SOFTPLUS:
        for j in range(size):
            e = np.exp(-abs(t[k, j]))
            s = one / (one + e)
            z[k, j] = max(t[k, j], zero) + np.log1p(e)
            slope[k, j] = s if t[k, j] > 0 else e * s
            curvature[k, j] = e * s * s
    elif activation == ELU:
        for j in range(size):
            e = np.exp(min(t[k, j], zero))
            z[k, j] = max(t[k, j], zero) + e - one
            slope[k, j] = e
            curvature[k, j] = zero if t[k, j] > 0 else e
    else:
        for j in range(size):
            slope[k, j] = one if t[k, j] > 0 else leak
            z[k, j] = max(t[k, j], zero) + (leak * min(t[k, j], zero) if leak > 0 else zero)
            curvature[k, j] = zero


@compiled
def _evaluate(  # type: ignore[no-untyped-def]
    network, rows, points, lower, upper, value, gradient, hessian, work
):
    """One forward and one backward pass, and J = ∂t/∂y beside the forward pass for the Hessian."""
    members, groups, widths = network.members, network.groups, network.widths
    weight_z, weight_y, gate_z = network.weight_z, network.weight_y, network.gate_z
    gate_y, bias, A = network.gate_y, network.bias, network.A
    t, z, slope, curvature, J = work.t, work.z, work.slope, work.curvature, work.J
    delta, carried, y, own, g, H = work.delta, work.carried, work.y, work.own, work.g, work.H
    hidden, n, width, dim = len(widths), len(y), bias.shape[1], points.shape[1]
    batch = len(bias) // ((hidden + 1) * members)
    second = len(hessian) > 0
    mapped = len(A) > 0
    share = t.dtype.type(groups) / t.dtype.type(members)
    odd = -1
    for index in range(len(rows)):
        row = rows[index]
        shared = row if len(A) > 1 else 0
        for k in range(dim):
            rounded = t.dtype.type(points[index, k])
            points[index, k] = min(max(rounded, lower[row, k]), upper[row, k])
        for i in range(n):
            total = network.b[shared, i] if mapped else points[index, i]
            if mapped:
                for k in range(dim):
                    total += A[shared, i, k] * points[index, k]
            y[i] = total
            g[i] = 0.0
            for k in range(n):
                H[i, k] = 0.0
        level = 0.0
        at = row % batch
        for member in range(row // batch, members, groups):
            for k in range(hidden):
                size = widths[k]
                above, of_y = (k * members + member) * batch + at, (k * members + member) * n
                for j in range(size):
                    t[k, j] = bias[above, j]
                for i in range(n):
                    gate = gate_y[(member * batch + at) * (hidden + 1) + k, i]
                    for j in range(size):
                        J[k * n + i, j] = gate * weight_y[of_y + i, j]
                        t[k, j] += y[i] * J[k * n + i, j]
                if k > 0:
                    below = ((k - 1) * members + member) * batch + at
                    of_z = ((k - 1) * members + member) * width
                    for a in range(widths[k - 1]):
                        gate = gate_z[below, a]
                        c = z[k - 1, a] * gate
                        for j in range(size):
                            t[k, j] += c * weight_z[of_z + a, j]
                        if second:
                            c = slope[k - 1, a] * gate
                            for i in range(n):
                                c_i = c * J[(k - 1) * n + i, a]
                                for j in range(size):
                                    J[k * n + i, j] += c_i * weight_z[of_z + a, j]
                _activate(network.activation, network.leak, k, size, t, z, slope, curvature)

            above = (hidden * members + member) * batch + at
            output = bias[above, 0]
            for i in range(n):
                gate = gate_y[(member * batch + at) * (hidden + 1) + hidden, i]
                own[i] = gate * weight_y[(hidden * members + member) * n + i, 0]
                output += own[i] * y[i]
            below = ((hidden - 1) * members + member) * batch + at
            of_z = ((hidden - 1) * members + member) * width
            for j in range(widths[hidden - 1]):
                delta[j] = weight_z[of_z + j, 0] * gate_z[below, j]
            level += output + row_dot(z, hidden - 1, delta, widths[hidden - 1])
            for k in range(hidden - 1, -1, -1):
                size = widths[k]
                if second:
                    for j in range(size):
                        curvature[k, j] *= delta[j]
                    for i in range(n):
                        for j in range(size):
                            carried[j] = curvature[k, j] * J[k * n + i, j]
                        for other in range(i + 1):
                            H[i, other] += row_dot(J, k * n + other, carried, size)
                for j in range(size):
                    carried[j] = delta[j] * slope[k, j]
                of_y = (k * members + member) * n
                for i in range(n):
                    gate = gate_y[(member * batch + at) * (hidden + 1) + k, i]
                    own[i] += gate * row_dot(weight_y, of_y + i, carried, size)
                if k > 0:
                    below = ((k - 1) * members + member) * batch + at
                    of_z = ((k - 1) * members + member) * width
                    for a in range(widths[k - 1]):
                        delta[a] = gate_z[below, a] * row_dot(weight_z, of_z + a, carried, size)
            for i in range(n):
                g[i] += own[i]
        value[index] = level * share
        for i in range(n):
            g[i] *= share
            for other in range(i + 1):
                H[i, other] *= share
                H[other, i] = H[i, other]
        for k in range(dim):
            gradient[index, k] = 0.0 if mapped else g[k]
            if mapped:
                for i in range(n):
                    gradient[index, k] += g[i] * A[shared, i, k]
        if second:
            for a in range(dim):
                for c in range(dim):
                    hessian[index, a, c] = 0.0 if mapped else H[a, c]
        if second and mapped:
            for i in range(n):
                for c in range(dim):
                    total = 0.0
                    for other in range(n):
                        total += H[i, other] * A[shared, other, c]
                    for a in range(dim):
                        hessian[index, a, c] += A[shared, i, a] * total
        if len(network.gamma) > 0:
            weight = network.gamma[row]
            for k in range(dim):
                move = points[index, k] - network.center[row, k]
                value[index] += weight / 2 * move * move
                gradient[index, k] += weight * move
                if second:
                    hessian[index, k, k] += weight
        total = value[index]
        for k in range(dim):
            total += abs(gradient[index, k])
        if odd < 0 and not abs(total) < np.inf:
            odd = index
    return odd
