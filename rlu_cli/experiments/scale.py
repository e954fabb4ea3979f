"""How much of an experiment is run: the paper's sizes, a part of them, or a trial of seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from rlu_cli.experiments.setup import Setup

Part = Mapping[tuple[str, str], int]


@dataclass(frozen=True)
class Scale:
    """One size of all experiments.

    clients    clients of each federation that are attacked: 0 to this - 1
    auxiliary  images of each class the server holds
    draws      Monte-Carlo samples per class
    fewer      (dataset, model) → clients, overrides `clients`
    sparser    (dataset, model) → auxiliary images, overrides `auxiliary`
    leaves     (target, dataset, model) that are left out
    trial      drawn digits and LeNet-5 replace all images and models
    rows       at most this many rows of a target, from both ends; None for all
    """

    name: str
    clients: int = 10
    auxiliary: int = 100
    draws: int = 10_000
    fewer: Part = field(default_factory=dict)
    sparser: Part = field(default_factory=dict)
    leaves: frozenset[tuple[str, str, str]] = frozenset()
    trial: bool = False
    rows: int | None = None

    def clients_of(self, setup: Setup) -> int:
        """How many clients of the federation are attacked."""
        return self.fewer.get((setup.dataset, setup.model), self.clients)

    def auxiliary_of(self, setup: Setup) -> int:
        """Auxiliary images of each class."""
        return self.sparser.get((setup.dataset, setup.model), self.auxiliary)

    def fitted(self, setup: Setup) -> Setup:
        """The federation as it is run at this scale."""
        if not self.trial:
            return setup
        act = "relu" if setup.model in ("cnn", "vgg16q") else setup.act
        trained = None if setup.pretrain is None else DRAWN_ACCURACY
        drawn = replace(setup, model="lenet5", act=act, batch=16, clients=2, lr=0.01)
        return replace(drawn, pretrain=trained)


_LARGE = ("CIFAR100", "vgg16"), ("Tiny", "resnet50")
SCALES: Mapping[str, Scale] = {
    scale.name: scale
    for scale in (
        Scale("full"),
        Scale(
            "small",
            fewer=dict(zip(_LARGE, (4, 3), strict=True)),
            sparser=dict(zip(_LARGE, (40, 20), strict=True)),
            leaves=frozenset(
                {
                    ("table4", "CIFAR100", "vgg16"),
                    ("table6", "CIFAR100", "vgg16"),
                    ("figure1", "SVHN", "lenet5"),
                    ("figure1", "CIFAR10", "vgg16"),
                    ("figure1", "CIFAR100", "vgg16"),
                }
            ),
        ),
        Scale("smoke", clients=1, auxiliary=10, draws=500, trial=True, rows=2),
    )
}
DRAWN_TRAIN, DRAWN_TEST = 60, 20  # digits of each class drawn for a trial
DRAWN_ACCURACY = 0.2  # training accuracy of every trained model of a trial
