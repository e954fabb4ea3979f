"""`rlu simulate`: a labelled federation on disk, to try everything else on."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlu_cli.commands import options
from rlu_cli.errors import printable
from rlu_cli.settings.specs import REPORT, SIMULATE

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from rlu_cli.simulator.simulation import Simulation
    from rlu_cli.simulator.work import Federation, Round

CLIENTS_SHOWN = 20
CLASSES_SHOWN = 12


@options.with_settings(SIMULATE)
def simulate(
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder to write; a stopped run is resumed.")
    ],
    flags: Mapping[str, Any],
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png",
            help="Plot who holds which classes (needs matplotlib).",
            rich_help_panel=REPORT,
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Replace an earlier run of other settings.", rich_help_panel=REPORT
        ),
    ] = False,
    show_settings: options.ShowSettings = False,
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", help="Print the folder only.", rich_help_panel=REPORT),
    ] = False,
    no_progress: Annotated[
        bool, typer.Option("--no-progress", help="No progress bar.", rich_help_panel=REPORT)
    ] = False,
) -> None:
    """Train a federation whose label counts are known, and write every checkpoint with its truth.

    \b
    rlu simulate --out run --epochs 10 --only-clients 3

    Each client gets RUN/r000/cN.pt and RUN/r000/cN.truth.json; the server's images are in RUN/aux
    and the settings in RUN/rlu.toml, where rlu attack finds them. The folder is printed at the end.
    """
    from rlu_cli.api.simulate import prepare_simulation, simulation_settings
    from rlu_cli.commands.settings_table import print_settings
    from rlu_cli.settings.layers import flag_layer
    from rlu_cli.simulator.partition_plot import check_plot

    settings = simulation_settings(flag_layer(flags))
    if show_settings:
        print_settings(settings, SIMULATE)
        return
    if plot is not None:
        check_plot(plot)
    simulation = prepare_simulation(settings, out, force)
    if plot is not None:
        _draw(simulation.federation, plot)
    done = _train(simulation, show=not (quiet or no_progress))
    if not quiet:
        _summarise(simulation, done)
    typer.echo(out)


def _console() -> Console:
    from rich.console import Console

    console = Console(stderr=True, markup=False, highlight=False)
    if not console.is_terminal:
        console.width = 250  # a pipe has no width of its own: never truncate
    return console


def _draw(federation: Federation, file: Path) -> None:
    from rlu_cli.simulator.partition_plot import plot_partition

    names = federation.holding.class_names
    counts = federation.partition.counts(federation.holding.client_labels, len(names))
    plot_partition(counts, names, file)


def _train(simulation: Simulation, *, show: bool) -> list[Round]:
    from rich.progress import Progress

    plan = simulation.request.plan
    console = _console()
    with Progress(console=console, transient=True, disable=not (show and console.is_terminal)) as p:
        total = None if plan.train_to is not None else _all_steps(simulation)
        task = p.add_task("training clients", total=total)
        return list(
            simulation.rounds(
                lambda done: p.advance(task, done),
                lambda text: p.update(task, description=text),
            )
        )


def _all_steps(simulation: Simulation) -> int:
    plan = simulation.request.plan
    last = plan.rounds - 1
    clients = sum(len(plan.trained(r, last=r == last)) for r in range(plan.rounds))
    return plan.steps.steps * clients


def _summarise(simulation: Simulation, done: list[Round]) -> None:
    from rlu_cli.simulator.simulation import attack_arguments

    console = _console()
    federation = simulation.federation
    for note in federation.holding.notes:
        console.print(f"note: {note}")
    console.print(_partition_table(federation))
    redraws = federation.partition.redraws
    console.print(f"partition: {redraws} redraws, seed {federation.plan.seed}")
    for line in _what_was_noted(simulation):
        console.print(line)
    for state in done:
        trained = state.train_accuracy
        said = "" if trained is None else f", training accuracy {trained:.3f}"
        reused = f"  ({state.reused} clients were there already)" if state.reused else ""
        console.print(f"r{state.number:03d} global accuracy {state.accuracy:.3f}{said}{reused}")
    last = next(state for state in reversed(done) if state.clients)
    words = attack_arguments(simulation, last.number, last.clients[0])
    console.print(f"next: {shlex.join(words)}", soft_wrap=True)


def _what_was_noted(simulation: Simulation) -> list[str]:
    """Sentences on pretraining and privacy, as run.json has them."""
    lines = []
    if (pretrained := simulation.run.noted("pretrain")) is not None:
        lines.append(
            f"pretrained centrally to training accuracy {pretrained['reached']:.3f} "
            f"({pretrained['epochs']} epochs, asked for {pretrained['target']:g})"
        )
    if privacy := simulation.run.noted("privacy"):
        worst = max(privacy, key=lambda row: float(row["epsilon"]))
        lines.append(
            f"DP-SGD: epsilon of the rounds at most {worst['epsilon']:.3g} "
            f"at delta {worst['delta']:.2g} "
            f"(client {worst['client']}, {worst['rounds']} rounds; run.json lists all)"
        )
    return lines


def _partition_table(federation: Federation) -> Table:
    """How many images of each class each client owns; only totals where there are many classes."""
    from rich.table import Table

    holding = federation.holding
    names = [printable(name, 16) for name in holding.class_names]
    counts = federation.partition.counts(holding.client_labels, len(names))
    wide = len(names) <= CLASSES_SHOWN
    table = Table("client", "images", *(names if wide else ["classes"]), title="images owned")
    for client, row in enumerate(counts[:CLIENTS_SHOWN]):
        cells = row.tolist() if wide else [int((row > 0).sum())]
        table.add_row(*map(str, [client, int(row.sum()), *cells]))
    if len(counts) > CLIENTS_SHOWN:
        table.caption = f"and {len(counts) - CLIENTS_SHOWN} more clients: run.json lists all"
    return table
