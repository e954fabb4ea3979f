"""Models of packages, recognised by the names and shapes of a bare state dict."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from torch import Tensor

from rlu_cli.models.fingerprints import FINGERPRINTS

_UNCOUNTED = "num_batches_tracked"  # files from before PyTorch 0.4.1 have none
_LENGTH = 16  # hexadecimal digits


def fingerprint(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """A hash of all names and shapes but for the first dimension, which holds the classes.

    The width of every layer but the last shows in the shape of the next.
    """
    named = sorted((n, s[1:]) for n, s in shapes.items() if not n.endswith(_UNCOUNTED))
    return hashlib.sha256(repr(named).encode()).hexdigest()[:_LENGTH]


def packaged_model(state: Mapping[str, Tensor]) -> str | None:
    """`torchvision:NAME` or `timm:NAME` of the model with these names and shapes; None if unknown.

    Among several models of one fingerprint it is torchvision's, then the one of the shortest name.
    """
    return FINGERPRINTS.get(fingerprint({name: tuple(t.shape) for name, t in state.items()}))
