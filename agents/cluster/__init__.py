"""Work on a Ray cluster: cells of a benchmark, episodes of an evaluation, environments."""

from __future__ import annotations

import logging
from typing import Any


def connect(address: str | None, jobs: int) -> Any:
    """Ray, connected to a cluster.

    Args:
        address: of the cluster, as ``ray.init`` takes it; None for one on this machine.
        jobs: processors of a cluster on this machine.

    Raises:
        ValueError: Ray is not installed, or there is no such cluster.
    """
    try:
        import ray
    except ImportError:
        raise ValueError("--backend ray needs Ray: pip install 'icnn-rl[ray]'") from None
    size: dict[str, Any] = {"num_cpus": jobs} if address is None else {}
    try:
        ray.init(
            address=address or "local",
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **size,
        )
    except (ConnectionError, RuntimeError) as error:
        raise ValueError(f"--address: no Ray cluster at {address}: {error}") from None
    return ray
