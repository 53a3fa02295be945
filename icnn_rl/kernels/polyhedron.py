"""A batch of polyhedra as compiled code wants them: flat, in float64, in units of their bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from icnn_rl.kernels.interior_point import FEASIBLE, minimize_model, violation
from icnn_rl.kernels.newton_equations import compiled

if TYPE_CHECKING:
    from icnn_rl.sets.convex_set import ConvexSet

Array = npt.NDArray[np.float64]

TOLERANCE = 1e-7  # violation, relative to the bounds, that counts as feasible
MARGIN = 0.01  # from the bounds: from a vertex an interior-point method does not get away
FAR = 1e3  # how far out a point is looked for where there are no bounds


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
    def of(cls, over: ConvexSet, like: Tensor) -> Polyhedron:
        """The set that points of the shape of ``like``, ``(*batch, n)``, live in."""
        n = like.shape[-1]
        size = like.shape[:-1].numel()
        lower, upper = (_flat(t, like, n) for t in over.bounds(like))
        finite = np.isfinite(lower) & np.isfinite(upper)
        origin = np.where(finite, lower, 0.0)
        width = np.where(finite, upper - lower, 1.0)
        rows: list[Array] = []
        for constraint in (over.inequalities(like), over.equations(like)):
            if constraint is None:
                rows += [np.zeros((size, 0, n)), np.zeros((size, 0))]
                continue
            matrix = _flat(constraint[0], like, constraint[0].shape[-2], n)
            right = _flat(constraint[1], like, constraint[1].shape[-1])
            right = right - np.einsum("srn,sn->sr", matrix, origin)
            matrix = matrix * width[:, None]
            length = np.linalg.norm(matrix, axis=-1)
            length[length == 0] = 1.0
            rows += [matrix / length[..., None], right / length]
        return cls(origin, width, finite, *rows)

    def units(self, y: Array) -> Array:
        """Points y, ``(size, n)``, in units of the bounds; the middle where these are equal."""
        wide = self.width > 0
        u: Array = np.divide(y - self.origin, self.width, where=wide, out=np.full_like(y, 0.5))
        return u

    def inner(self, y: Array) -> Array:
        """As ``units``, kept off the bounds: where an interior-point method starts well."""
        u = self.units(y)
        return np.where(self.finite, u.clip(MARGIN, 1 - MARGIN), u)

    def interior(self) -> tuple[Array, npt.NDArray[np.bool_]]:
        """A point well inside each polyhedron, in units of its bounds, and which are empty."""
        size = len(self.origin)
        u, empty = np.where(self.finite, 0.5, 0.0), np.zeros(size, np.bool_)
        undecided = empty.copy()
        if not (self.b_ub.size or self.b_eq.size):
            return u, empty
        # Where there are no bounds, far ones are made up: u = shift + stretch · (a unit interval).
        right = np.concatenate([self.b_ub, self.b_eq], -1)
        far = FAR * (1 + np.abs(right).max(-1, keepdims=True))
        stretch = np.where(self.finite, 1.0, 2 * far)
        shift = np.where(self.finite, 0.0, -far)
        b = self.b_ub - np.einsum("srn,sn->sr", self.A_ub, shift)
        e = self.b_eq - np.einsum("sqn,sn->sq", self.A_eq, shift)
        A, E = self.A_ub * stretch[:, None], self.A_eq * stretch[:, None]
        _find_interior(A, b, E, e, u, empty, undecided)
        u = shift + stretch * u
        # Thinner than the interior-point method can resolve, or farther out than it looked.
        for i in np.flatnonzero(undecided | (empty & ~self.finite.all(-1))):
            rows = self.A_ub[i], self.b_ub[i], self.A_eq[i], self.b_eq[i]
            u[i], empty[i] = _deepest(*rows, self.finite[i], u[i])
        return u, empty

    def _middle(self) -> Array:
        """Where a search starts: from a vertex, as ``interior`` may be, it does not get away."""
        return np.where(self.finite, 0.5, 0.0 if self.finite.all() else self.interior()[0])

    def project(self, y: Array) -> Array:
        """The nearest point of each polyhedron to y, ``(size, n)``; y itself where it is inside."""
        u = self._middle()
        inside = self.contains(y)
        rows = ~inside
        if rows.any():
            part, moved = self._take(rows), u[rows]
            x = y[rows] - part.origin
            _project(part.A_ub, part.b_ub, part.A_eq, part.b_eq, part.width, part.finite, x, moved)
            u[rows] = moved
        return np.where(inside[:, None], y, self.origin + self.width * u)

    def nearest_image(self, y: Array, M: Array) -> Array:
        """Points x of each polyhedron with M x nearest to y, for y ``(size, m)``, M ``(m, n)``."""
        u = self._middle()
        _nearest_image(
            self.A_ub,
            self.b_ub,
            self.A_eq,
            self.b_eq,
            self.width,
            self.finite,
            self.origin,
            M,
            y,
            u,
        )
        x: Array = self.origin + self.width * u
        return x

    def contains(self, y: Array) -> npt.NDArray[np.bool_]:
        """Which points y, ``(size, n)``, violate nothing by more than 1e-10."""
        u = self.units(y)
        off = np.where(self.finite, np.maximum(-u, u - 1), 0.0)
        fixed = np.where(self.width > 0, 0.0, np.abs(y - self.origin))
        sides = (
            np.einsum("srn,sn->sr", self.A_ub, u) - self.b_ub,
            np.abs(np.einsum("sqn,sn->sq", self.A_eq, u) - self.b_eq),
        )
        worst: Array = np.concatenate([off, fixed, *sides], -1).max(-1)
        return worst <= FEASIBLE

    def _take(self, rows: npt.NDArray[np.bool_]) -> Polyhedron:
        return Polyhedron(*(t[rows] for t in self))

    def support(self, c: Array) -> Array:
        """An upper bound on cᵀy over each polyhedron, tight to some 1e-12 of its size."""
        u, bound = self._middle(), np.empty(len(c))
        _minimize_linear(
            self.A_ub, self.b_ub, self.A_eq, self.b_eq, self.finite, -c * self.width, u, bound
        )
        upper: Array = (c * self.origin).sum(-1) - bound
        return upper


def _flat(t: Tensor, like: Tensor, *trailing: int) -> Array:
    batch = like.shape[:-1]
    expanded = t.expand(*batch, *trailing).reshape(batch.numel(), *trailing)
    return np.ascontiguousarray(expanded.detach().cpu().double().numpy())


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
    return u, not violation(A, -b, E, e, u) <= TOLERANCE


@compiled
def _find_interior(A, b, E, e, u, empty, undecided):  # type: ignore[no-untyped-def]
    """Minimise the largest violation, of at least -1, to ever finer accuracy until it is < 0."""
    size, r, n = A.shape
    h, a = np.zeros((r + 1, n)), np.empty(r + 1)
    p, finite, point = np.zeros(n), np.ones(n, np.bool_), np.empty(n)
    for i in range(size):
        h[:r], a[:r], a[r] = A[i], -b[i], -1.0
        scale = 1 + np.abs(a).max()
        accuracy = 0.1
        while True:
            point[:] = 0.5
            bound = minimize_model(
                h / scale, a / scale, 0, E[i], e[i], np.empty((0, 0)), p, finite, point, accuracy,
                2 * TOLERANCE / scale,
            )  # fmt: skip
            outside = violation(h[:r], a[:r], E[i], e[i], point)
            if bound * scale > TOLERANCE or outside <= FEASIBLE or accuracy < 1e-12:
                break
            accuracy /= 100
        empty[i] = bound * scale > TOLERANCE
        undecided[i] = not empty[i] and not outside <= TOLERANCE
        if not (empty[i] or undecided[i]):
            u[i] = point


@compiled
def _project(A, b, E, e, width, finite, x, u):  # type: ignore[no-untyped-def]
    size, r, n = A.shape
    h, a = np.zeros((r + 1, n)), np.zeros(r + 1)
    for i in range(size):
        h[:r], a[:r] = A[i], -b[i]
        p = width[i] ** 2
        h[r] = -width[i] * x[i]
        scale = (p * u[i] ** 2).sum() + np.abs(h[r]).sum() + 1e-300
        h[r] /= scale
        # A value shows half of the digits of its minimiser, so no gap is small enough to stop at.
        minimize_model(
            h, a, r, E[i], e[i], np.empty((0, 0)), p / scale, finite[i], u[i], -1.0, np.inf,
        )  # fmt: skip


@compiled
def _nearest_image(A, b, E, e, width, finite, origin, M, y, u):  # type: ignore[no-untyped-def]
    size, r, n = A.shape
    h, a, p = np.zeros((r + 1, n)), np.zeros(r + 1), np.empty(n)
    for i in range(size):
        h[:r], a[:r] = A[i], -b[i]
        image = M * width[i]
        P = image.T @ image
        h[r] = -(image.T @ (y[i] - M @ origin[i]))
        scale = np.abs(P).sum() + np.abs(h[r]).sum() + 1e-300
        h[r] /= scale
        # M may have a kernel, and there a little curvature keeps the equations regular.
        p[:] = 1e-14
        minimize_model(h, a, r, E[i], e[i], P / scale, p, finite[i], u[i], -1.0, np.inf)


@compiled
def _minimize_linear(A, b, E, e, finite, c, u, bound):  # type: ignore[no-untyped-def]
    size, r, n = A.shape
    h, a, p = np.zeros((r + 1, n)), np.zeros(r + 1), np.zeros(n)
    for i in range(size):
        free = False
        for k in range(n):
            free |= not finite[i, k] and c[i, k] != 0
        if free:
            bound[i] = -np.inf
            continue
        h[:r], a[:r] = A[i], -b[i]
        scale = np.abs(c[i]).sum() + 1e-300
        h[r] = c[i] / scale
        bound[i] = scale * minimize_model(
            h, a, r, E[i], e[i], np.empty((0, 0)), p, finite[i], u[i], 1e-13, np.inf,
        )  # fmt: skip
