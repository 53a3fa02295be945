"""Sets that are solved for by compiled code."""

from __future__ import annotations

import torch
from torch import Tensor

from icnn_rl.sets.convex_set import ConvexSet


class PolyhedralSet(ConvexSet):
    """A set about which nothing is known but its bounds, inequalities and equations."""

    def support(self, c: Tensor) -> Tensor:
        return self._compute("support", c, c.shape[:-1])

    def project(self, y: Tensor) -> Tensor:
        return self._compute("project", y, y.shape)

    def interior(self, like: Tensor) -> tuple[Tensor, Tensor]:
        from icnn_rl.kernels.polyhedron import Polyhedron

        polyhedron = Polyhedron.of(self, like)
        u, empty = polyhedron.interior()
        y = torch.as_tensor(polyhedron.origin + polyhedron.width * u, device=like.device)
        return (
            y.to(like.dtype).view_as(like),
            torch.as_tensor(empty, device=like.device).view(like.shape[:-1]),
        )

    def _compute(self, method: str, t: Tensor, shape: torch.Size) -> Tensor:
        from icnn_rl.kernels.polyhedron import Polyhedron

        flat = t.detach().reshape(-1, t.shape[-1]).cpu().double().numpy()
        result = getattr(Polyhedron.of(self, t), method)(flat)
        return torch.as_tensor(result, device=t.device).to(t.dtype).view(shape)
