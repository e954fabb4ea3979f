"""Federated-learning schemes: the client's step, and what the server derives from it.

A scheme is one file and one line in `SCHEMES`. Its client half defines what is added to every
gradient, its server half how updates become the next global model. `recursion` derives the in-round
weights and the gradient-free offset of any combination with momentum, decay and schedule from unit
impulses.
"""

from __future__ import annotations

from rlu_cli.schemes import fedavg, feddc, feddyn, scaffold
from rlu_cli.schemes.bundle import Bundle
from rlu_cli.schemes.recursion import Recursion, offset_weights, path, step, step_weights
from rlu_cli.schemes.scaffold import derived_server_value
from rlu_cli.schemes.schedule import learning_rates, parse_schedule
from rlu_cli.schemes.scheme import Member, Round, Scheme, SchemeRule

SCHEMES: dict[str, Scheme] = {
    "fedavg": fedavg.FEDAVG,
    "fedprox": fedavg.FEDPROX,
    "scaffold": scaffold.SCHEME,
    "feddyn": feddyn.SCHEME,
    "feddc": feddc.SCHEME,
}

__all__ = [
    "SCHEMES",
    "Bundle",
    "Member",
    "Recursion",
    "Round",
    "Scheme",
    "SchemeRule",
    "derived_server_value",
    "learning_rates",
    "offset_weights",
    "parse_schedule",
    "path",
    "step",
    "step_weights",
]
