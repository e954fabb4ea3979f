"""Dirichlet partition of the images of each class over the clients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlu_cli.errors import InputError

MAX_REDRAWS = 1000


@dataclass(frozen=True)
class Partition:
    """A division of the images among the clients.

    owned    one (n_k,) int64 array of image indices for each client; disjoint, covering all
    redraws  number of draws rejected because a client had too few images
    """

    owned: tuple[NDArray[np.int64], ...]
    redraws: int

    def counts(self, labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
        """Number of images per client and class, (clients, N)."""
        return np.stack([np.bincount(labels[own], minlength=classes) for own in self.owned])


def partition(
    labels: NDArray[np.int64], clients: int, alpha: float, minimum: int, seed: int
) -> Partition:
    """Divide every class among the clients in Dirichlet proportions (Eqs. 93, 94).

    labels   (n,) int64
    alpha    concentration: small gives each client few classes, large makes clients alike
    minimum  images that every client owns at least; draws with fewer are rejected
    Raises InputError E240 when that is impossible or 1000 redraws are not enough.
    """
    if len(labels) < clients * minimum:
        raise _impossible(f"{len(labels)} images cannot give {clients} clients {minimum} each")
    rng = np.random.default_rng([seed, 2])
    sizes = np.bincount(labels)
    for redraws in range(MAX_REDRAWS + 1):
        cuts = _cuts(rng.dirichlet(np.full(clients, alpha), len(sizes)), sizes)
        if np.diff(cuts, axis=1).sum(axis=0).min() >= minimum:
            return Partition(_deal(labels, cuts, rng), redraws)
    raise _impossible(
        f"after {MAX_REDRAWS} redraws some client still has fewer than {minimum} of "
        f"{len(labels)} images (alpha {alpha:g}, {clients} clients)"
    )


def _cuts(proportions: NDArray[np.float64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each class is cut: (N, clients + 1), from 0 to the class size.

    Paper note: Eq. 94 gives fractions of images; rounding the cumulative sum assigns each once.
    """
    shares = np.cumsum(proportions, axis=1)
    shares /= shares[:, -1:]
    ends = np.rint(shares * sizes[:, None]).astype(np.int64)
    return np.concatenate([np.zeros((len(sizes), 1), dtype=np.int64), ends], axis=1)


def _deal(
    labels: NDArray[np.int64], cuts: NDArray[np.int64], rng: np.random.Generator
) -> tuple[NDArray[np.int64], ...]:
    shuffled = [rng.permutation(np.flatnonzero(labels == c)) for c in range(len(cuts))]
    owned = []
    for client in range(cuts.shape[1] - 1):
        parts = [s[cut[client] : cut[client + 1]] for s, cut in zip(shuffled, cuts, strict=True)]
        owned.append(np.sort(np.concatenate(parts)).astype(np.int64))
    return tuple(owned)


def _impossible(message: str) -> InputError:
    return InputError(
        "E240",
        message,
        hint="fewer --clients, a smaller --batch-size, a larger --alpha, or more images",
    )
