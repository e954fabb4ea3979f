"""`rlu simulate`: a labelled federation on disk, to try everything else on."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlu_cli.errors import UsageError, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from rlu_cli.simulator.federation import Federation, Round
    from rlu_cli.simulator.simulation import Simulation

CLIENTS_SHOWN = 20
CLASSES_SHOWN = 12


def simulate(
    out: Annotated[Path, typer.Option(help="Folder to write; a killed run is resumed.")],
    images: Annotated[
        str, typer.Option(help="digits (drawn, no download), a folder per class, or an .npz.")
    ] = "digits",
    image_size: Annotated[
        int | None, typer.Option(min=1, help="Resize the images to this many pixels a side.")
    ] = None,
    clients: Annotated[int, typer.Option(help="Clients the images are divided among.")] = 10,
    alpha: Annotated[
        float, typer.Option(help="Dirichlet concentration: small means few classes a client.")
    ] = 0.5,
    model: Annotated[
        str, typer.Option(help="Architecture (see rlu models), pkg.mod:factory or file.py:Net.")
    ] = "lenet5",
    model_arg: Annotated[
        list[str] | None, typer.Option(metavar="K=V", help="Argument of the model; repeatable.")
    ] = None,
    init: Annotated[
        Path | None, typer.Option(help="Checkpoint to start from instead of drawn weights.")
    ] = None,
    lr: Annotated[float, typer.Option(help="Learning rate of the clients' SGD.")] = 0.01,
    batch_size: Annotated[int, typer.Option(help="Images in each mini-batch.")] = 32,
    epochs: Annotated[
        int, typer.Option(help="Steps a client takes in a round, one mini-batch each.")
    ] = 1,
    rounds: Annotated[int, typer.Option(help="Rounds of federated averaging.")] = 1,
    seed: Annotated[int, typer.Option(help="Fixes every draw.")] = 0,
    aux_per_class: Annotated[
        int, typer.Option(min=2, help="Auxiliary images of each class the server holds.")
    ] = 100,
    normalize: Annotated[
        str, typer.Option(help="Input scaling: half, none, imagenet or MEAN/STD.")
    ] = "half",
    only_clients: Annotated[
        str | None, typer.Option(metavar="I,J", help="Train only these clients (one round).")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an earlier run of other settings.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No summary.")] = False,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="No progress bar.")] = False,
) -> None:
    """Train a federation whose label counts are known and write every checkpoint with its truth.

    Each client gets RUN/r000/cN.pt and RUN/r000/cN.truth.json; the server's images are in RUN/aux
    and the settings in RUN/rlu.toml, where rlu attack finds them. The folder is printed at the end.
    """
    from rlu_cli.observe import choose_device
    from rlu_cli.simulator.plan import Plan
    from rlu_cli.simulator.simulation import Request, prepare

    only = _client_list(only_clients)
    plan = Plan(clients, alpha, lr, batch_size, epochs, rounds, seed, only)
    request = Request(
        plan=plan,
        images=images,
        image_size=image_size,
        model=model,
        model_args=tuple(model_arg or ()),
        init=init,
        normalize=normalize,
        aux_per_class=aux_per_class,
        device=choose_device(device),
    )
    simulation = prepare(request, out, force=force)
    done = _train(simulation, show=not (quiet or no_progress))
    if not quiet:
        _summarise(simulation, done)
    typer.echo(out)


def _client_list(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise UsageError(
            "E101",
            f"--only-clients {printable(text)} is not a list of client numbers",
            hint='for example --only-clients "0,3"',
        )
    return tuple(sorted({int(part) for part in parts}))


def _console() -> Console:
    from rich.console import Console

    console = Console(stderr=True, markup=False, highlight=False)
    if not console.is_terminal:
        console.width = 250  # a pipe has no width of its own: never truncate
    return console


def _train(simulation: Simulation, *, show: bool) -> list[Round]:
    from rich.progress import Progress

    plan = simulation.request.plan
    console = _console()
    with Progress(console=console, transient=True, disable=not (show and console.is_terminal)) as p:
        steps = plan.rounds * len(plan.trained) * plan.epochs
        task = p.add_task("training clients", total=steps)
        return list(simulation.rounds(lambda done: p.advance(task, done)))


def _summarise(simulation: Simulation, done: list[Round]) -> None:
    from rlu_cli.simulator.simulation import attack_arguments

    console = _console()
    federation = simulation.federation
    for note in federation.holding.notes:
        console.print(f"note: {note}")
    console.print(_partition_table(federation))
    redraws = federation.partition.redraws
    console.print(f"partition: {redraws} redraws, seed {federation.plan.seed}")
    for state in done:
        reused = f"  ({state.reused} clients were there already)" if state.reused else ""
        console.print(f"r{state.number:03d} global accuracy {state.accuracy:.3f}{reused}")
    console.print(f"next: {shlex.join(attack_arguments(simulation))}", soft_wrap=True)


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
