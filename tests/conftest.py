"""Settings shared by all tests."""

from __future__ import annotations

import os

import torch
from hypothesis import settings

torch.set_num_threads(1)  # pytest-xdist already keeps every core busy
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # kernels run on the CPU; read when triton is imported

settings.register_profile("local", deadline=None, max_examples=15)
settings.register_profile("thorough", deadline=None, max_examples=500)
settings.register_profile(
    "continuous-integration", parent=settings.get_profile("local"), derandomize=True
)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE")
    or ("continuous-integration" if os.environ.get("CI") else "local")
)
