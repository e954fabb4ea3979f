"""Baselines that ignore the update: the score of a guess."""

from __future__ import annotations

import torch

from rlu_cli.attacks.answer import shared
from rlu_cli.attacks.method import Method
from rlu_cli.types import Evidence, Recovery


def uniform(evidence: Evidence) -> Recovery:
    """K labels distributed uniformly over the classes."""
    return shared(evidence, torch.ones(evidence.classes))


def prior(evidence: Evidence) -> Recovery:
    """K labels in proportion to the auxiliary images per class."""
    return shared(
        evidence, torch.bincount(evidence.before.labels.cpu(), minlength=evidence.classes)
    )


UNIFORM = Method(
    title="uniform guess",
    paper="floor",
    attack=uniform,
    any_optimiser=True,
)
PRIOR = Method(
    title="auxiliary shares",
    paper="floor",
    attack=prior,
    auxiliary=True,
    any_optimiser=True,
)
