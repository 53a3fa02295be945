"""Tangents of convex functions, and their minima over boxes, in compiled code."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from icnn_rl.kernels.compiling import compiled, inner

if TYPE_CHECKING:
    from icnn_rl.kernels.polyhedron import Polyhedron

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]


class Evaluations(NamedTuple):
    """Values and gradients of some of a batch of functions.

    Attributes:
        active: which functions, increasing, ``(a,)``.
        y: where, ``(a, n)``.
        value, gradient: ``(a,)`` and ``(a, n)``.
    """

    active: Index
    y: Array
    value: Array
    gradient: Array

    def take(self, rows: Index) -> Evaluations:
        """Some of the evaluations."""
        return Evaluations(self.active[rows], self.y[rows], self.value[rows], self.gradient[rows])


class Tangents(NamedTuple):
    """f(y) ≥ offset + cᵀu + Σ pᵢ uᵢ²/2 for y = origin + width ∘ u, a tangent for each of some f.

    Attributes:
        offset: with ``noise`` taken off, ``(a,)``.
        noise: how far rounding may have moved the tangent, ``(a,)``.
        c: slopes, ``(a, n)``.
        p: the curvature that strong convexity adds, ``(a, n)``.
        bound: the tangent's minimum over the bounds of the set, ``(a,)``.
    """

    offset: Array
    noise: Array
    c: Array
    p: Array
    bound: Array

    @classmethod
    def empty(cls, a: int, n: int) -> Tangents:
        """Room for a tangents in n dimensions."""
        return cls._make((*np.empty((2, a)), *np.empty((2, a, n)), np.empty(a)))


def tangents_at(
    evaluations: Evaluations, over: Polyhedron, gamma: Array, rounding: float
) -> Tangents:
    """The tangents where functions were evaluated.

    Args:
        evaluations: values and gradients.
        over: the set, of which only bounds count here.
        gamma: strong convexity of all functions, ``(size,)``.
        rounding: relative error of values and gradients.
    """
    tangents = Tangents.empty(*evaluations.y.shape)
    _tangents_at(evaluations, over, gamma, rounding, tangents)
    return tangents


@compiled
def _tangents_at(evaluations, over, gamma, rounding, tangents):  # type: ignore[no-untyped-def]
    for row in range(len(evaluations.active)):
        tangent_at(evaluations, row, over, gamma, rounding, tangents)


@inner
def tangent_at(evaluations, row, over, gamma, rounding, tangents):  # type: ignore[no-untyped-def]
    """Put one tangent in its place."""
    i = evaluations.active[row]
    c, p, finite = tangents.c[row], tangents.p[row], over.finite[i]
    curved = gamma[i]
    offset = evaluations.value[row]
    noise = abs(offset)
    for k in range(len(c)):
        y, g, width = evaluations.y[row, k], evaluations.gradient[row, k], over.width[i, k]
        d = y - over.origin[i, k]
        offset += (curved / 2 * d - g) * d
        c[k] = (g - curved * d) * width
        p[k] = curved * width * width
        reach = width if finite[k] else abs(c[k]) / curved
        noise += abs(g) * (abs(y) + reach)
    noise *= rounding
    tangents.offset[row], tangents.noise[row] = offset - noise, noise
    tangents.bound[row] = offset - noise + separable_minimum(c, p, finite)


@inner
def separable_minimum(c, p, finite):  # type: ignore[no-untyped-def]
    """min Σ cᵢ uᵢ + pᵢ uᵢ²/2 over 0 ≤ uᵢ ≤ 1 where ``finite``; elsewhere uᵢ is free."""
    value = 0.0
    for i in range(len(c)):
        u = 1.0 if c[i] < 0 else 0.0
        if p[i] > 0:
            u = -c[i] / p[i]
            if finite[i]:
                u = min(max(u, 0.0), 1.0)
        elif c[i] != 0 and not finite[i]:
            return -np.inf
        value += (c[i] + p[i] * u / 2) * u
    return value
