"""Its place here lets every folder import the helpers beside it, such as `federations`."""

from __future__ import annotations

import os

# One thread each: several test processes run at a time.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
