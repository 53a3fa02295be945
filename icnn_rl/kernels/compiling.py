"""How numerical code is compiled: by numba, cached on disk, announced where it takes a while."""

from __future__ import annotations

import logging

from numba import njit
from numba.core import event

# A division by zero is infinite as everywhere in NumPy. Sums keep their order: compiled code looks
# up how far apart in memory its arrays happen to lie, and takes a vectorised loop or a plain one.
compiled = njit(cache=True, error_model="numpy")

# For what is only called from compiled code.
inner = njit(cache=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)  # type: ignore[call-overload]

# A loop that writes to no array has one form only, so here sums may be vectorised.
reduction = njit(  # type: ignore[call-overload]
    cache=True,
    error_model="numpy",
    fastmath={"contract", "reassoc"},
    forceinline=True,
    no_cpython_wrapper=True,
    no_cfunc_wrapper=True,
)


class _Announcer(event.Listener):
    """Logs a line whenever code of this package is compiled, which the cache saves next time."""

    def __init__(self) -> None:
        self._depth = 0

    def on_start(self, event: event.Event) -> None:
        function = event.data["dispatcher"].py_func
        if self._depth == 0 and function.__module__.startswith("icnn_rl."):
            name = function.__name__.strip("_").replace("_", " ")
            logging.getLogger("icnn_rl").info("compiling: %s (once)", name)
        self._depth += 1

    def on_end(self, event: event.Event) -> None:
        self._depth -= 1


event.register("numba:compile", _Announcer())
