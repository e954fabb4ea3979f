"""Federated-learning schemes: the client's step, and what the server derives from it.

A scheme is one file and one line in `SCHEMES`. Its client half says what joins every gradient, its
server half how updates become the next global model; weights and drift of any combination with
momentum, decay and schedule come from `recursion` by unit impulses.
"""

from __future__ import annotations

from collections.abc import Callable

from rlu_cli.schemes.bundle import Bundle
from rlu_cli.schemes.fedavg import FedProx
from rlu_cli.schemes.feddc import FedDC
from rlu_cli.schemes.feddyn import FedDyn
from rlu_cli.schemes.recursion import Recursion, drift_weights, path, step, step_weights
from rlu_cli.schemes.scaffold import Scaffold, derived_server_value
from rlu_cli.schemes.schedule import learning_rates, parse_schedule
from rlu_cli.schemes.scheme import Member, Round, Scheme

SCHEMES: dict[str, Callable[[float], Scheme]] = {
    "fedavg": lambda pull: FedProx(),
    "fedprox": lambda pull: FedProx(pull),
    "scaffold": lambda pull: Scaffold(),
    "feddyn": lambda pull: FedDyn(pull),
    "feddc": lambda pull: FedDC(pull),
}
SUMMARIES = {
    "fedavg": "plain averaging of what clients send",
    "fedprox": "task loss + λ/2 ‖θ - θ_global‖²",
    "scaffold": "gradients corrected by c - c_k, the server's and the client's control variate",
    "feddyn": "task loss + λ/2 ‖θ - θ_global‖² + λ ⟨Σ Δ_k, θ⟩ over the client's own rounds",
    "feddc": "task loss + λ/2 ‖θ - (θ_global - d_k)‖² + ⟨θ, Δ_k - Δ⟩ / Σ η",
}
TAKES_LAMBDA = ("fedprox", "feddyn", "feddc")
SERVER_VALUE = "scaffold"  # the scheme whose clients see a value of the server's

__all__ = [
    "SCHEMES",
    "SERVER_VALUE",
    "SUMMARIES",
    "TAKES_LAMBDA",
    "Bundle",
    "Member",
    "Recursion",
    "Round",
    "Scheme",
    "derived_server_value",
    "drift_weights",
    "learning_rates",
    "parse_schedule",
    "path",
    "step",
    "step_weights",
]
