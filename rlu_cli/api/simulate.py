"""A labelled federation on disk, to try everything else on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rlu_cli.api.arguments import arguments
from rlu_cli.api.finding import SimulatedClient, SimulatedFederation
from rlu_cli.evidence.forward import choose_device
from rlu_cli.settings.files import file_layers
from rlu_cli.settings.layers import Layer, environment_layer, resolve
from rlu_cli.settings.specs import SIMULATE
from rlu_cli.simulator.request import request_of
from rlu_cli.simulator.simulation import Simulation, prepare
from rlu_cli.types import ProgressCallback, Setting

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from rlu_cli.api.settings import SimulateSettings


def simulate(
    out: str | Path,
    *,
    force: bool = False,
    progress: ProgressCallback = lambda text: None,
    **settings: Unpack[SimulateSettings],
) -> SimulatedFederation:
    """Train a federation whose label counts are known, and write every checkpoint with its truth.

    out       folder to write; a run that was stopped is resumed
    force     replace an earlier run of other settings
    progress  called with a sentence on what is going on
    settings  as the options of `rlu simulate`, with underscores; what is left out is looked up in
              RLU_* variables and in rlu.toml upwards from the working directory

    Raises RluError (UsageError, InputError) with the codes of docs/errors.md.
    """
    simulation = prepare_simulation(
        simulation_settings(arguments(settings, SIMULATE)), Path(out), force
    )
    last = None
    for done in simulation.rounds(progress=progress):
        last = done if done.clients else last
    assert last is not None, "a plan has a round"
    run, number = simulation.run, last.number
    files = {
        client: SimulatedClient(
            run.global_file(number),
            run.client_file(number, client),
            run.truth_file(number, client),
        )
        for client in last.clients
    }
    return SimulatedFederation(run.path, run.auxiliary, files, last.accuracy)


def simulation_settings(given: Layer) -> dict[str, Setting]:
    """Every setting of a simulation: given, else from the environment, rlu.toml or the default."""
    _, own = file_layers([], Path.cwd())
    return resolve([given, environment_layer(), *own], SIMULATE)


def prepare_simulation(settings: dict[str, Setting], out: Path, force: bool) -> Simulation:
    """The federation that settings describe, its folder opened; nothing is trained yet."""
    value = {name: setting.value for name, setting in settings.items()}.get
    device = choose_device(settings["device"].value)
    return prepare(request_of(value, device), out, force=force)
