"""Local training of the simulated clients, with the setting names of `rlu attack`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from rlu_cli.schemes import SCHEMES
from rlu_cli.schemes.descent import ADAPTIVE, BETAS
from rlu_cli.settings.table import SETTINGS


@dataclass(frozen=True)
class Local:
    """A client's local training, except for learning rate, batch size and epochs.

    momentum         γ; the buffer starts empty in every round
    pull             λ of the scheme
    weight_decay     w, by the optimiser's own rule
    clip             largest norm of a step's mean gradient; None for no clipping
    label_smoothing  ε
    class_weights    (N,) weight of each class in the loss; None for equal weights
    lr_schedule      of the steps of one round, as `schemes.learning_rates` reads it
    samples          n: each client uses n of its images, and an epoch is a pass over them
    steps_per_epoch  full batches in an epoch, if `samples` is None
    drop_last        leave out a pass's last batch when it is smaller
    """

    scheme: str = "fedavg"
    optimizer: str = "sgd"
    momentum: float = 0.0
    nesterov: bool = False
    pull: float = 0.0
    weight_decay: float = 0.0
    betas: tuple[float, float] = BETAS
    clip: float | None = None
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None
    lr_schedule: str = "constant"
    samples: int | None = None
    steps_per_epoch: int | None = None
    drop_last: bool = False

    def settings(self) -> dict[str, Any]:
        """The values that differ from the defaults, under the names of rlu.toml."""
        values = [(f, getattr(self, f.name)) for f in fields(self)]
        return {_NAMES.get(f.name, f.name): value for f, value in values if value != f.default}

    def impossible(self) -> list[str]:
        """A sentence for each invalid value."""
        wrong = []
        for name, value in self.settings().items():
            try:
                SETTINGS[name].parse(value)
            except ValueError as expected:
                wrong.append(f"{name} must be {expected}")
        return wrong

    def contradictions(self) -> list[str]:
        """A sentence for each contradiction between values."""
        adaptive = self.optimizer in ADAPTIVE
        with_lambda = [name for name, scheme in SCHEMES.items() if scheme.takes_lambda]
        cases = {
            f"--lambda has no effect with {self.scheme}, only with {', '.join(with_lambda)}": (
                self.pull and self.scheme not in with_lambda
            ),
            f"--momentum has no effect with {self.optimizer}": self.momentum and adaptive,
            "--nesterov needs --momentum": self.nesterov and not self.momentum,
            "--betas needs --optimizer adam or adamw": self.betas != BETAS and not adaptive,
            "--drop-last needs --samples": self.drop_last and self.samples is None,
        }
        return [sentence for sentence, holds in cases.items() if holds]


_NAMES = {"pull": "lambda"}
