"""How solvers evaluate functions: narrow networks in compiled code, all else in PyTorch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from icnn_rl.functions import Affine, ConvexFunction, Mean, Modes, Quadratic, without_quadratic
from icnn_rl.kernels import ACTIVATIONS
from icnn_rl.kernels.network import Network, Workspace, evaluate
from icnn_rl.kernels.tangents import Evaluations
from icnn_rl.networks.conditioned import ConditionedNetwork
from icnn_rl.solvers.problem import Array, Index, NonFiniteError, Problem, to_array

MAX_BATCH_MULTIPLICATIONS = 1_200_000  # of a batch; beyond them PyTorch is faster
MAX_HESSIAN_MULTIPLICATIONS = 15_000  # of a member and sample, likewise
EXPONENTIAL_COST = 50  # in multiplications
CUT_DOWN_SHARE = 0.75  # of samples that are not done


class Oracle:
    """Evaluates the function of a problem on the samples that are not done yet.

    Args:
        problem: the problem.
        hessians: whether Hessians are asked for, too.
    """

    def __init__(self, problem: Problem, hessians: bool = False) -> None:
        self._problem, self._f, self._hessians = problem, problem.f, hessians
        self._held = np.arange(problem.size)
        self._network = compiled_network(problem.f, hessians)
        if self._network is not None:
            self._work = Workspace.of(self._network)
        self._lower, self._upper = problem.bounds

    def evaluate(self, y: Array, active: Index) -> Evaluations:
        """Values and gradients at points, rounded to the function's precision, inside the bounds.

        Args:
            y: points, ``(a, n)``.
            active: which sample each belongs to, increasing.

        Raises:
            NonFiniteError: a value or a gradient is not finite.
        """
        if self._network is not None:
            y = y.copy()
            value, gradient, self._hessian, odd = evaluate(
                self._network, active, y, self._lower, self._upper, self._hessians, self._work
            )
        else:
            self._hold(active)
            y = to_array(torch.as_tensor(y).to(self._problem.start.dtype))
            y = np.minimum(np.maximum(y, self._lower[active]), self._upper[active])
            value, gradient = self._apply("value_and_gradient", y, active)
            finite = np.isfinite(value) & np.isfinite(gradient).all(1)
            odd = -1 if finite.all() else int(finite.argmin())
        if odd >= 0:
            raise NonFiniteError.at(active[odd], value[odd], gradient[odd])
        self._last = Evaluations(active, y, value, gradient)
        return self._last

    def hessian(self, rows: Index) -> Array:
        """Hessians at some of the points of the last call of ``evaluate``."""
        if self._network is not None:  # the gradient and the Hessian come in one pass
            return self._hessian[rows]
        return self._apply("hessian", self._last.y[rows], self._last.active[rows])[0]

    def _hold(self, active: Index) -> None:
        """Cut the function down to the samples left, once they are few enough."""
        like = self._problem.start
        if len(self._problem.batch_shape) == 1 and len(active) < CUT_DOWN_SHARE * len(self._held):
            kept = torch.as_tensor(np.searchsorted(self._held, active), device=like.device)
            self._f = self._f.take(kept)
            self._held = active

    def _apply(
        self, method: Literal["value_and_gradient", "hessian"], y: Array, active: Index
    ) -> list[Array]:
        problem, like = self._problem, self._problem.start
        rows: slice | Index = slice(None)
        if len(active) < len(self._held):
            rows = np.searchsorted(self._held, active)
            points = np.zeros((len(self._held), problem.dim))
            points[rows] = y
            y = points
        tensor = torch.tensor(y, dtype=like.dtype, device=like.device)  # never shared
        if len(self._held) == problem.size:
            tensor = tensor.view_as(like)
        result = getattr(self._f, method)(tensor)
        axes = len(problem.batch_shape)
        return [
            to_array(t.reshape(len(self._held), *t.shape[axes:]))[rows]
            for t in (result if isinstance(result, tuple) else (result,))
        ]


def compiled_network(f: ConvexFunction, hessians: bool = False) -> Network | None:
    """The form of f that compiled code evaluates; None where torch is faster, or f is another.

    That is a conditioned network with gates, or the mean over an ensemble or over each of its
    modes, of y itself or of an affine function of it, with a quadratic of y added or not.

    Args:
        f: a batch of functions.
        hessians: whether each gradient goes with a Hessian.
    """
    whole, term = without_quadratic(f)
    g = whole.f if isinstance(whole, Affine) else whole
    members = g.f if isinstance(g, Mean) else g
    network = members.f if isinstance(g, Mean) and isinstance(members, Modes) else members
    if not isinstance(network, ConditionedNetwork) or g.batch_shape != f.batch_shape:
        return None
    if network.gate_y is None or network.gate_z is None:
        return None
    hidden = [b.shape[-1] for b in network.bias[:-1]]
    work = network.dim * sum(hidden) + sum(a * b for a, b in pairwise(hidden))
    if network.activation.name in ("softplus", "elu"):
        work += EXPONENTIAL_COST * sum(hidden)
    narrow = hessians and work <= MAX_HESSIAN_MULTIPLICATIONS
    if not narrow and work * network.bias[0].shape[:2].numel() > MAX_BATCH_MULTIPLICATIONS:
        return None
    gate_y = _rows([network.gate_y])
    dim, no_numbers = whole.dim or 0, gate_y[:0, 0]
    A, b = np.empty((0, 0, 0)), np.empty((0, 0))
    if isinstance(whole, Affine):
        A, b = _map(whole)
    gamma, center = no_numbers, no_numbers.reshape(0, dim)
    if term is not None:
        gamma, center = _quadratic(term, f, network.gate_y)
    return Network._make(
        (
            ACTIVATIONS.index(network.activation.name),
            gate_y.dtype.type(network.activation.leak),
            np.array(hidden, np.int64),
            len(network.gate_y),
            math.prod(f.batch_shape[:-1]) if isinstance(g, Mean) else len(network.gate_y),
            *(_rows(t) for t in (network.weight_z, network.weight_y, network.gate_z)),
            gate_y,
            _rows(network.bias),
            *(A, b, gamma, center),
        )
    )


def _map(f: Affine) -> tuple[Array, Array]:
    """A and b of each function of A u + b, or of all."""
    shape = f.batch_shape if f.A.dim() > 2 or f.b.dim() > 1 else torch.Size([1])
    return (
        to_array(f.A.expand(*shape, *f.A.shape[-2:]).reshape(-1, *f.A.shape[-2:])),
        to_array(f.b.expand(*shape, *f.b.shape[-1:]).reshape(-1, *f.b.shape[-1:])),
    )


def _quadratic(
    term: Quadratic, f: ConvexFunction, like: Tensor
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """γ and the centre of each function's quadratic term, in the precision of ``like``."""
    gamma = torch.as_tensor(term.gamma, dtype=like.dtype).expand(f.batch_shape).reshape(-1)
    center = term.center.to(like).expand(*f.batch_shape, f.dim or 0).flatten(0, -2)
    return _array(gamma), _array(center)


def _rows(layers: Sequence[Tensor]) -> npt.NDArray[Any]:
    """Arrays of one number of axes as the rows of one array, filled up with zeros."""
    if len(layers) == 1:
        return _array(layers[0]).reshape(-1, layers[0].shape[-1])
    arrays = [t.detach().cpu().numpy() for t in layers]
    *axes, inputs, columns = (max(sizes) for sizes in zip(*(a.shape for a in arrays), strict=True))
    stacked = np.zeros((len(layers), *axes, inputs, columns), arrays[0].dtype)
    for place, array in zip(stacked, arrays, strict=True):
        place[..., : array.shape[-2], : array.shape[-1]] = array
    return stacked.reshape(-1, columns)


def _array(t: Tensor) -> npt.NDArray[Any]:
    return np.ascontiguousarray(t.detach().cpu().numpy())
