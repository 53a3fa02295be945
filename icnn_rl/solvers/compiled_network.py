"""A narrow conditioned network, evaluated sample by sample in compiled code."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from icnn_rl.functions import Affine, ConvexFunction, Mean, Modes, Quadratic, without_quadratic
from icnn_rl.kernels.newton_equations import compiled, dot
from icnn_rl.networks.activations import ACTIVATIONS
from icnn_rl.networks.conditioned import ConditionedNetwork

Array = npt.NDArray[Any]
CODES = {name: code for code, name in enumerate(ACTIVATIONS)}
RELU, LEAKY_RELU, SOFTPLUS, ELU, SQUAREPLUS = CODES.values()
WORK = 1_200_000  # multiplications a batch, up to which torch's calls cost more than they save
NARROW = 15_000  # multiplications a member and sample, up to which they do with Hessians, always
EXPONENTIAL = 50  # multiplications that the exponential of an activation costs


@compiled
def activate(code, leak, t, z, slope, curvature):  # type: ignore[no-untyped-def]
    """σ(t), σ'(t) and σ''(t)."""
    one = t.dtype.type(1)
    half = t.dtype.type(0.5)
    zero = t.dtype.type(0)
    if code == SQUAREPLUS:
        for j in range(len(t)):
            root = np.sqrt(t[j] * t[j] + one)
            part = half / (root + abs(t[j]))
            z[j] = max(t[j], zero) + part
            slope[j] = one - part / root if t[j] > 0 else part / root
            curvature[j] = half / (root * root * root)
    elif code == SOFTPLUS:
        for j in range(len(t)):
            e = np.exp(-abs(t[j]))
            s = one / (one + e)
            z[j] = max(t[j], zero) + np.log1p(e)
            slope[j] = s if t[j] > 0 else e * s
            curvature[j] = e * s * s
    elif code == ELU:
        for j in range(len(t)):
            e = np.exp(min(t[j], zero))
            z[j] = max(t[j], zero) + e - one
            slope[j] = e
            curvature[j] = zero if t[j] > 0 else e
    else:
        for j in range(len(t)):
            slope[j] = one if t[j] > 0 else leak
            z[j] = max(t[j], zero) + (leak * min(t[j], zero) if leak > 0 else zero)
            curvature[j] = zero


@compiled
def evaluate(network, rows, points, value, gradient, hessian):  # type: ignore[no-untyped-def]
    """Values and gradients at ``points`` u of the functions ``rows``, and Hessians where asked for.

    ``hessian`` has no rows where it is not. A function is the mean over the members ``row // B``,
    ``row // B + groups``, and so on. One forward and one backward pass at y = A u + b, or y = u,
    and J = ∂t/∂y beside the forward pass, as in ``ConditionedNetwork``; back from y to u; last the
    quadratic term, if there is one.
    """
    code, leak, widths, weight_z, weight_y, gate_z, gate_y, bias, groups, A, b, gamma, center = (
        network
    )
    members, batch, layers, n = gate_y.shape
    second = len(hessian) > 0
    number = bias.dtype.type
    t = np.empty((layers, weight_y.shape[3]), bias.dtype)
    z, slope, curvature = np.empty_like(t), np.empty_like(t), np.empty_like(t)
    delta, carried = np.empty_like(t[0]), np.empty_like(t[0])
    J = np.empty((layers, n, t.shape[1]), bias.dtype)
    y, own = np.empty(n, bias.dtype), np.empty(n, bias.dtype)
    g, H, of_u = np.empty(n), np.empty((n, n)), np.empty(points.shape[1])
    mapped = len(A) > 0
    for row in range(len(rows)):
        value[row] = 0
        g[:] = 0
        H[:] = 0
        if mapped:
            shared = 0 if len(A) == 1 else rows[row]
            for i in range(n):
                y[i] = b[shared, i] + dot(A[shared, i], points[row])
        else:
            y[:] = points[row]
        at = rows[row] % batch
        for e in range(rows[row] // batch, members, groups):
            for k in range(layers - 1):
                size = widths[k]
                tk = t[k, :size]
                tk[:] = bias[k, e, at, :size]
                for i in range(n):
                    wy = weight_y[k, e, i, :size]
                    gate = gate_y[e, at, k, i]
                    c = y[i] * gate
                    for j in range(size):
                        tk[j] += c * wy[j]
                    if second:
                        for j in range(size):
                            J[k, i, j] = gate * wy[j]
                if k > 0:
                    for a in range(widths[k - 1]):
                        wz = weight_z[k - 1, e, a, :size]
                        gate = gate_z[k - 1, e, at, a]
                        c = z[k - 1, a] * gate
                        for j in range(size):
                            tk[j] += c * wz[j]
                        if second:
                            c = slope[k - 1, a] * gate
                            for i in range(n):
                                c_i = c * J[k - 1, i, a]
                                for j in range(size):
                                    J[k, i, j] += c_i * wz[j]
                activate(code, leak, tk, z[k, :size], slope[k, :size], curvature[k, :size])

            output = bias[layers - 1, e, at, 0]
            for i in range(n):
                own[i] = gate_y[e, at, layers - 1, i] * weight_y[layers - 1, e, i, 0]
                output += own[i] * y[i]
            size = widths[layers - 2]
            for j in range(size):
                delta[j] = weight_z[layers - 2, e, j, 0] * gate_z[layers - 2, e, at, j]
            value[row] += output + dot(delta[:size], z[layers - 2, :size])
            for k in range(layers - 2, -1, -1):
                size = widths[k]
                if second:
                    for j in range(size):
                        curvature[k, j] *= delta[j]
                    for i in range(n):
                        for j in range(size):
                            carried[j] = curvature[k, j] * J[k, i, j]
                        for other in range(i + 1):
                            H[i, other] += dot(carried[:size], J[k, other, :size])
                for j in range(size):
                    carried[j] = delta[j] * slope[k, j]
                for i in range(n):
                    wy = weight_y[k, e, i, :size]
                    own[i] += gate_y[e, at, k, i] * dot(carried[:size], wy)
                if k > 0:
                    for a in range(widths[k - 1]):
                        delta[a] = gate_z[k - 1, e, at, a] * dot(
                            carried[:size], weight_z[k - 1, e, a, :size]
                        )
            for i in range(n):
                g[i] += own[i]
        share = number(groups) / number(members)
        value[row] *= share
        for i in range(n):
            g[i] *= share
            for other in range(i + 1):
                H[i, other] *= share
                H[other, i] = H[i, other]
        if mapped:
            gradient[row] = 0
            for i in range(n):
                gradient[row] += g[i] * A[shared, i]
            if second:
                hessian[row] = 0
                for i in range(n):
                    of_u[:] = 0
                    for other in range(n):
                        of_u += H[i, other] * A[shared, other]
                    for k in range(len(of_u)):
                        hessian[row, k] += A[shared, i, k] * of_u
        else:
            gradient[row] = g
            if second:
                hessian[row] = H
        if len(gamma) > 0:
            weight = gamma[rows[row]]
            for i in range(points.shape[1]):
                move = points[row, i] - center[rows[row], i]
                value[row] += weight / 2 * move * move
                gradient[row, i] += weight * move
                if second:
                    hessian[row, i, i] += weight


class Arrays(NamedTuple):
    """What a ``CompiledNetwork`` is made of, as ``evaluate`` takes it.

    Layers are stacked, as wide as the widest of them, so that ``evaluate`` is compiled once and not
    for every depth; ``widths`` are those of the hidden ones. Members that are the same modulo
    ``groups`` are averaged.
    """

    code: int
    leak: np.floating[Any]
    widths: npt.NDArray[np.int64]
    weight_z: Array
    weight_y: Array
    gate_z: Array
    gate_y: Array
    bias: Array
    groups: int
    A: Array
    b: Array
    gamma: Array
    center: Array


@dataclass(frozen=True)
class CompiledNetwork:
    """A conditioned network, or the mean over an ensemble or over each of its modes, compiled.

    Its argument may be an affine function of y, and a quadratic of y may be added to it.

    Attributes:
        arrays: what it is made of.
        dim: the length of y.
    """

    arrays: Arrays
    dim: int

    @classmethod
    def of(cls, f: ConvexFunction, hessians: bool = False) -> Self | None:
        """The compiled form of f; None where torch is faster, or f is something else.

        Args:
            f: a batch of functions.
            hessians: whether each gradient goes with a Hessian.
        """
        whole, term = without_quadratic(f)
        g = whole.f if isinstance(whole, Affine) else whole
        inner = g.f if isinstance(g, Mean) else g
        network = inner.f if isinstance(g, Mean) and isinstance(inner, Modes) else inner
        if not isinstance(network, ConditionedNetwork) or g.batch_shape != f.batch_shape:
            return None
        if network.gate_y is None or network.gate_z is None:
            return None
        hidden = [b.shape[-1] for b in network.bias[:-1]]
        A, b = _map(whole, network.gate_y)
        work = network.dim * sum(hidden) + sum(a * b for a, b in pairwise(hidden))
        if network.activation.name in ("softplus", "elu"):
            work += EXPONENTIAL * sum(hidden)
        narrow = hessians and work <= NARROW
        if not narrow and work * network.bias[0].shape[:2].numel() > WORK:
            return None
        gate_y = _array(network.gate_y)
        gamma, center = _quadratic(term, f, network.gate_y)
        groups = math.prod(f.batch_shape[:-1]) if isinstance(g, Mean) else len(gate_y)
        arrays = Arrays(
            CODES[network.activation.name],
            gate_y.dtype.type(network.activation.leak),
            np.array(hidden, np.int64),
            _stacked(network.weight_z),
            _stacked(network.weight_y),
            _stacked(network.gate_z),
            gate_y,
            _stacked(network.bias),
            groups,
            A,
            b,
            gamma,
            center,
        )
        return cls(arrays, whole.dim or 0)

    def value_and_gradient(self, y: Array, rows: Array) -> tuple[Array, Array]:
        """Values ``(a,)`` and gradients ``(a, n)`` of the functions ``rows`` at points."""
        value, gradient, _ = self._evaluate(y, rows, 0)
        return value, gradient

    def hessian(self, y: Array, rows: Array) -> Array:
        """Hessians ``(a, n, n)``."""
        return self._evaluate(y, rows, len(rows))[2]

    def _evaluate(self, y: Array, rows: Array, hessians: int) -> tuple[Array, Array, Array]:
        value, gradient = np.empty(len(rows)), np.empty((len(rows), self.dim))
        hessian = np.empty((hessians, self.dim, self.dim))
        evaluate(self.arrays, rows, y, value, gradient, hessian)
        return value, gradient, hessian


def _map(f: ConvexFunction, like: Tensor) -> tuple[Array, Array]:
    """A and b of each function of A u + b, or of all; empty where there is none."""
    if not isinstance(f, Affine):
        return _array(like.new_empty(0, 0, 0).double()), _array(like.new_empty(0, 0).double())
    shape = f.batch_shape if f.A.dim() > 2 or f.b.dim() > 1 else torch.Size([1])
    A = f.A.expand(*shape, *f.A.shape[-2:]).reshape(-1, *f.A.shape[-2:])
    b = f.b.expand(*shape, *f.b.shape[-1:]).reshape(-1, *f.b.shape[-1:])
    return _array(A.double()), _array(b.double())


def _quadratic(term: Quadratic | None, f: ConvexFunction, like: Tensor) -> tuple[Array, Array]:
    """γ and the centre of each function's quadratic term; empty where there is none."""
    shape, dim = f.batch_shape, f.dim or 0
    if term is None:
        return _array(like.new_empty(0)), _array(like.new_empty(0, dim))
    gamma = torch.as_tensor(term.gamma, dtype=like.dtype).expand(shape).flatten()
    center = term.center.to(like).expand(*shape, dim).flatten(0, -2)
    return _array(gamma), _array(center)


def _stacked(layers: tuple[Tensor, ...]) -> Array:
    """Arrays of one number of axes as one array, filled up with zeros."""
    if len(layers) == 1:
        return _array(layers[0])[None]
    shape = np.max([t.shape for t in layers], 0)
    stacked = np.zeros((len(layers), *shape), _array(layers[0]).dtype)
    for k, t in enumerate(layers):
        stacked[k, ..., : t.shape[-2], : t.shape[-1]] = t.detach().cpu().numpy()
    return stacked


def _array(t: Tensor) -> Array:
    return np.ascontiguousarray(t.detach().cpu().numpy())
