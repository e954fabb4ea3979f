"""Environment of the experiments: the user's images, output folder, scale and progress."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import torch

from rlu_cli.attacks import ATTACKS
from rlu_cli.attacks.observations import DUMMIES
from rlu_cli.errors import UsageError
from rlu_cli.experiments.images import Source, drawn_images, find_images
from rlu_cli.experiments.scale import DRAWN_TEST, DRAWN_TRAIN, Scale
from rlu_cli.experiments.setup import Setup, folder_name, simulation_request
from rlu_cli.simulator.plan import Plan
from rlu_cli.simulator.run_folder import RunFolder
from rlu_cli.simulator.simulation import Simulation, prepare

# Published methods that train nothing; rlu's own additions are requested with --methods.
QUICK = tuple(name for name, method in ATTACKS.items() if method.needs <= {DUMMIES})


class Watch(Protocol):
    """Progress callbacks."""

    def expect(self, clients: int) -> None:
        """Announce the number of clients."""

    def say(self, text: str) -> None:
        """Show the current stage."""

    def done(self, text: str = "") -> None:
        """Count one client as done; without text if it was measured earlier."""


class Silent:
    """Ignores all progress."""

    def expect(self, clients: int) -> None: ...

    def say(self, text: str) -> None: ...

    def done(self, text: str = "") -> None: ...


@dataclass(frozen=True)
class Lab:
    """Everything an experiment is given.

    data     folder of the user's images; None at the scale that draws its own
    out      folder that everything is written to
    command  the user's command line, for captions
    only     shell pattern of the rows to run; None for all
    most     clients of each row; None for those of the scale
    methods  attacks to run, RLU among them
    """

    data: Path | None
    out: Path
    scale: Scale
    device: torch.device
    command: str
    only: str | None = None
    most: int | None = None
    methods: tuple[str, ...] = QUICK
    watch: Watch = field(default_factory=Silent)
    _folders: dict[tuple[Setup, Source], RunFolder] = field(default_factory=dict)

    def source(self, dataset: str) -> Source | None:
        """The images used for a data set of the paper; None if there are none."""
        if self.scale.trial:
            file = self.out / "drawn-digits.npz"
            return drawn_images(dataset, file, DRAWN_TRAIN, DRAWN_TEST)
        return find_images(dataset, self.data)

    def clients(self, setup: Setup) -> tuple[int, ...]:
        """The clients of a federation that are attacked."""
        count = self.scale.clients_of(setup) if self.most is None else self.most
        return tuple(range(min(count, setup.clients)))

    def auxiliary(self, setup: Setup) -> int:
        """Auxiliary images of each class the server of a federation holds."""
        return self.scale.auxiliary_of(setup)

    def folder(self, setup: Setup, source: Source) -> RunFolder:
        """Run folder of a federation, with its settings; the images are read once."""
        key = (replace(setup, rounds=1), source)
        if key not in self._folders:
            self._folders[key] = self.prepare(setup, source).run
        return self._folders[key]

    def prepare(
        self, setup: Setup, source: Source, clients: Sequence[int] | None = None
    ) -> Simulation:
        """A federation ready to train, in OUT/runs under its own name; nothing is trained yet.

        setup    as returned by `Scale.fitted`
        clients  those to train in the last round, all when None
        Raises UsageError E106 when the folder holds a run with other settings.
        """
        chosen = None if clients is None else tuple(clients)
        count = self.auxiliary(setup)
        request = simulation_request(setup, source.path, count, self.device, chosen)
        folder = self.out / "runs" / folder_name(setup, source.slug)
        try:
            return prepare(request, folder)
        except UsageError as error:
            if error.code != "E106":
                raise
            hint = "give another --out (each scale its own), or delete that folder"
            raise UsageError("E106", error.message, why=error.why, hint=hint) from error

    def train(
        self,
        setup: Setup,
        source: Source,
        clients: Sequence[int] | None = None,
        what: str = "training",
    ) -> Simulation:
        """Prepare a federation and train its rounds, except for clients already on disk.

        what  the stage, for progress messages
        """
        self.watch.say(what)
        simulation = self.prepare(setup, source, clients)
        steps = 0

        def tick(more: int) -> None:
            nonlocal steps
            steps += more
            self.watch.say(f"{what}, step {steps} of {total}")

        total = _all_steps(simulation.request.plan)
        for _ in simulation.rounds(tick, lambda text: self.watch.say(f"{what}, {text}")):
            pass
        return simulation


def _all_steps(plan: Plan) -> int:
    """Steps of all clients in all rounds."""
    last = plan.rounds - 1
    clients = sum(len(plan.trained(r, last=r == last)) for r in range(plan.rounds))
    return plan.steps.steps * clients
