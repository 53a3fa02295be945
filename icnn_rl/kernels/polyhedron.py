"""A batch of polyhedra as compiled code wants them: flat, in float64, in units of their bounds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from icnn_rl.kernels.interior_point import FEASIBLE, NO_MATRIX, Models, minimize_models

Array = npt.NDArray[np.float64]

TOLERANCE = 1e-7  # violation, relative to the bounds
START_MARGIN = 0.01  # an interior-point method stalls at a vertex
SEARCH_DISTANCE = 1e3  # where there are no bounds


class Polyhedron(NamedTuple):
    """{ origin + width ∘ u : A_ub u ≤ b_ub, A_eq u = b_eq, 0 ≤ uᵢ ≤ 1 where finite }, per sample.

    Rows of the matrices have length one. Where a coordinate has no bounds, its width is one.

    Attributes:
        origin, width: shape ``(size, n)``.
        finite: shape ``(size, n)``.
        A_ub, b_ub: shapes ``(size, r, n)`` and ``(size, r)``.
        A_eq, b_eq: shapes ``(size, q, n)`` and ``(size, q)``.
    """

    origin: Array
    width: Array
    finite: npt.NDArray[np.bool_]
    A_ub: Array
    b_ub: Array
    A_eq: Array
    b_eq: Array

    @classmethod
    def box(cls, lower: Array, upper: Array) -> Polyhedron:
        """Boxes, given by finite bounds of shape ``(size, n)``."""
        size, n = lower.shape
        no_rows, no_sides = np.empty((size, 0, n)), np.empty((size, 0))
        finite = np.ones((size, n), np.bool_)
        return cls(lower, upper - lower, finite, no_rows, no_sides, no_rows, no_sides)

    def units(self, y: Array) -> Array:
        """Points y, ``(size, n)``, in units of the bounds; the middle where these are equal."""
        wide = self.width > 0
        u: Array = np.divide(y - self.origin, self.width, where=wide, out=np.full_like(y, 0.5))
        return u

    def inner(self, y: Array) -> Array:
        """As ``units``, kept off the bounds: where an interior-point method starts well."""
        u = self.units(y)
        return np.where(self.finite, u.clip(START_MARGIN, 1 - START_MARGIN), u)

    def interior(self) -> tuple[Array, npt.NDArray[np.bool_]]:
        """A point well inside each polyhedron, in units of its bounds, and which are empty."""
        u, empty = np.where(self.finite, 0.5, 0.0), np.zeros(len(self.origin), np.bool_)
        if not (self.b_ub.size or self.b_eq.size):
            return u, empty
        # Where there are no bounds, far ones are made up: u = shift + stretch · (a unit interval).
        right = np.concatenate([self.b_ub, self.b_eq], -1)
        far = SEARCH_DISTANCE * (1 + np.abs(right).max(-1, keepdims=True))
        stretch = np.where(self.finite, 1.0, 2 * far)
        shift = np.where(self.finite, 0.0, -far)
        b = self.b_ub - np.einsum("srn,sn->sr", self.A_ub, shift)
        e = self.b_eq - np.einsum("sqn,sn->sq", self.A_eq, shift)
        near = self._replace(
            A_ub=self.A_ub * stretch[:, None],
            b_ub=b,
            A_eq=self.A_eq * stretch[:, None],
            b_eq=e,
            finite=np.ones_like(self.finite),
        )
        u, empty, undecided = near._find_interior()
        u = shift + stretch * u
        # Thinner than the interior-point method can resolve, or farther out than it looked.
        for i in np.flatnonzero(undecided | (empty & ~self.finite.all(-1))):
            rows = self.A_ub[i], self.b_ub[i], self.A_eq[i], self.b_eq[i]
            u[i], empty[i] = _deepest(*rows, self.finite[i], u[i])
        return u, empty

    def _find_interior(self) -> tuple[Array, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """A point inside the bounds and rows of each, which are empty, and which undecided.

        The largest violation, of at least -1, is minimised to ever finer accuracy until it is < 0.
        """
        size, n = self.origin.shape
        points, outside = np.full((size, n), 0.5), np.full(size, np.inf)
        empty, active, accuracy = np.zeros(size, np.bool_), np.arange(size), 0.1
        scale = 1 + abs(self.b_ub).max(1, initial=1.0)
        models = self._model(np.zeros((size, n)), -1.0, np.zeros((size, n)), NO_MATRIX)
        while len(active) > 0 and accuracy >= 1e-14:
            points[active] = 0.5
            bound = minimize_models(
                models,
                points,
                active=active,
                scale=scale,
                accuracy=accuracy,
                target=2 * TOLERANCE,
            )
            outside[active] = self.violation(points)[active]
            empty[active] = bound > TOLERANCE
            active = active[~empty[active] & (outside[active] > FEASIBLE)]
            accuracy /= 100
        undecided = ~empty & ~(outside <= TOLERANCE)
        points[empty | undecided] = 0.5
        return points, empty, undecided

    def _model(self, c: Array, offset: float, p: Array, P: Array) -> Models:
        """The model cᵀu + offset + Σ pᵢ uᵢ²/2 + uᵀP u/2 under the rows."""
        h = np.concatenate([self.A_ub, c[:, None]], axis=1)
        a = np.concatenate([-self.b_ub, np.full((len(c), 1), offset)], axis=1)
        return Models(h, a, self.A_eq, self.b_eq, P, p, self.finite)

    def _minimize(
        self, c: Array, p: Array, u: Array, P: Array = NO_MATRIX, accuracy: float = -1.0
    ) -> Array:
        """Minimise cᵀu + Σ pᵢ uᵢ²/2 + uᵀP u/2 from u; returns lower bounds of the minima.

        By default to the last digits: a value shows half of the digits of its minimiser.
        """
        scale = abs(c).sum(1) + abs(P).sum((1, 2)) + (p * u**2).sum(1) + 1e-300
        models = self._model(c, 0.0, p, P)
        return minimize_models(models, u, rows=self.b_ub.shape[1], scale=scale, accuracy=accuracy)

    def violation(self, u: Array, rows: npt.NDArray[np.int64] | slice = slice(None)) -> Array:
        """The largest violation of an inequality or equation by points in units of the bounds.

        Args:
            u: points, ``(a, n)``.
            rows: which polyhedra they are for; all by default.
        """
        above = np.einsum("srn,sn->sr", self.A_ub[rows], u) - self.b_ub[rows]
        off = np.einsum("sqn,sn->sq", self.A_eq[rows], u) - self.b_eq[rows]
        worst: Array = np.concatenate([above, abs(off)], axis=1).max(1, initial=0.0)
        return worst

    def _middle(self) -> Array:
        """Where a search starts: from a vertex, as ``interior`` may be, it does not get away."""
        return np.where(self.finite, 0.5, 0.0 if self.finite.all() else self.interior()[0])

    def project(self, y: Array) -> Array:
        """The nearest point of each polyhedron to y, ``(size, n)``; y itself where it is inside."""
        u = self._middle()
        inside = self.contains(y)
        rows = ~inside
        if rows.any():
            part, moved = self.take(rows), u[rows]
            part._minimize(part.width * (part.origin - y[rows]), part.width**2, moved)
            u[rows] = moved
        return np.where(inside[:, None], y, self.origin + self.width * u)

    def nearest_image(self, y: Array, M: Array) -> Array:
        """Points x of each polyhedron with M x nearest to y, for y ``(size, m)``, M ``(m, n)``."""
        u = self._middle()
        image = M * self.width[:, None]
        away = y - self.origin @ M.T
        # M may have a kernel, and there a little curvature keeps the equations regular.
        P, c = image.mT @ image, -np.einsum("smn,sm->sn", image, away)
        scale = abs(P).sum((1, 2)) + abs(c).sum(1)
        self._minimize(c, np.broadcast_to(1e-14 * scale[:, None], u.shape).copy(), u, P)
        x: Array = self.origin + self.width * u
        return x

    def contains(self, y: Array) -> npt.NDArray[np.bool_]:
        """Which points y, ``(size, n)``, violate nothing by more than 1e-10."""
        u = self.units(y)
        off = np.where(self.finite, np.maximum(-u, u - 1), 0.0)
        fixed = np.where(self.width > 0, 0.0, np.abs(y - self.origin))
        worst = np.maximum(np.concatenate([off, fixed], -1).max(-1), self.violation(u))
        inside: npt.NDArray[np.bool_] = worst <= FEASIBLE
        return inside

    def take(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> Polyhedron:
        """Some of the polyhedra."""
        return Polyhedron._make(t[rows] for t in self)

    def minimize_quadratic(self, slope: Array, gamma: Array, start: Array) -> Array:
        """A lower bound on min hᵀy + γ/2 ‖y‖² over each polyhedron, for γ > 0.

        Args:
            slope: h, ``(size, n)``.
            gamma: γ, ``(size,)``.
            start: points well inside, in units of the bounds.
        """
        curved = gamma[:, None]
        g = slope + curved * self.origin
        level: Array = ((slope + g) / 2 * self.origin).sum(1)
        c, p = g * self.width, curved * self.width**2
        if self.b_ub.size or self.b_eq.size:
            return level + self._minimize(c, p, start.copy(), accuracy=1e-12)
        u = np.divide(-c, p, where=p > 0, out=np.zeros_like(c))
        u = np.where(self.finite, u.clip(0, 1), u)
        least: Array = level + ((c + p * u / 2) * u).sum(1)
        return least

    def support(self, c: Array, start: Array | None = None) -> Array:
        """An upper bound on cᵀy over each polyhedron, tight to some 1e-12 of its size, mostly.

        Args:
            c: shape ``(size, n)``.
            start: points well inside, in units of the bounds; the middle of these by default.
        """
        steep = -c * self.width
        endless = (~self.finite & (c != 0)).any(1)
        steep[endless] = 0.0
        start = self._middle() if start is None else start
        bound = self._minimize(steep, np.zeros_like(c), start, accuracy=1e-13)
        bound[endless] = -np.inf
        upper: Array = (c * self.origin).sum(-1) - bound
        return upper


def _deepest(
    A: Array, b: Array, E: Array, e: Array, finite: npt.NDArray[np.bool_], center: Array
) -> tuple[Array, bool]:
    """The point farthest from the inequalities, exactly; and whether it breaks one.

    It is in [0, 1] in the coordinates that are ``finite``, and at most 1 from the nearest row.
    """
    from scipy.optimize import linprog

    n = A.shape[1]
    # HiGHS takes small entries for zero, and what has no bounds has no units yet.
    largest = np.abs(np.concatenate([A, E])).max(0)
    unit = 1 / np.where(finite | (largest == 0), 1.0, largest)
    result = linprog(
        np.append(np.zeros(n), -1.0),
        A_ub=np.column_stack([A * unit, np.ones(len(b))]) if len(b) else None,
        b_ub=b if len(b) else None,
        A_eq=np.column_stack([E * unit, np.zeros(len(e))]) if len(e) else None,
        b_eq=e if len(e) else None,
        bounds=[(0, 1) if f else (-np.inf, np.inf) for f in finite] + [(-np.inf, 1)],
        options={"primal_feasibility_tolerance": FEASIBLE},
    )
    if result.x is None:
        return center, True
    u: Array = result.x[:n] * unit
    worst = np.concatenate([A @ u - b, abs(E @ u - e)]).max(initial=0.0)
    return u, not worst <= TOLERANCE
