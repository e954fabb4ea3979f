"""Counts against the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from rlu_cli.audit.scoring import Score
from rlu_cli.audit.scoring import score as score_tensors
from rlu_cli.errors import InputError

Counts = Mapping[str, int] | Sequence[int]


def score(counts: Counts, truth: Counts) -> Score:
    """Score recovered counts: cAcc (Eq. 91), iAcc (Eq. 92), and classes that are exactly right.

    counts, truth  by class name, or lists in the same order; a class left out of a dict has none

    Raises InputError E230 when they are not whole numbers, or not of the same classes and the same
    number of labels.
    """
    if isinstance(counts, Mapping) and isinstance(truth, Mapping):
        names = list(dict.fromkeys([*truth, *counts]))
        counts, truth = ([one.get(name, 0) for name in names] for one in (counts, truth))
    if isinstance(counts, Mapping) or isinstance(truth, Mapping) or len(counts) != len(truth):
        raise InputError(
            "E230",
            "counts and truth are not of the same classes",
            hint="give two dicts by class name, or two lists of the same length",
        )
    if not all(isinstance(n, int) and n >= 0 for n in (*counts, *truth)):
        raise InputError("E230", "counts are whole numbers from 0", hint="round them first")
    if sum(counts) != sum(truth) or not sum(truth):
        raise InputError(
            "E230",
            f"{sum(counts)} labels recovered, {sum(truth)} true ones",
            hint="iAcc compares counts of the same number of labels, at least one",
        )
    return score_tensors(torch.tensor(list(counts)), torch.tensor(list(truth)))
