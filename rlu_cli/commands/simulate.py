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

    from rlu_cli.simulator.simulation import Simulation
    from rlu_cli.simulator.work import Federation, Round

CLIENTS_SHOWN = 20
CLASSES_SHOWN = 12
MOST_ROUNDS = 200  # before the one to attack, with --train-to

_FEDERATION = "Federation"
_IMAGES = "Images and model"
_CLIENT = "How the clients train"
_BEFORE = "What comes before the last round"
_DEFENCE = "Defences"


def simulate(
    out: Annotated[Path, typer.Option(help="Folder to write; a killed run is resumed.")],
    images: Annotated[
        str,
        typer.Option(
            help="digits (drawn, no download), or a folder or file of a layout known to rlu.",
            rich_help_panel=_IMAGES,
        ),
    ] = "digits",
    image_size: Annotated[
        int | None,
        typer.Option(
            min=1, help="Resize the images to this many pixels a side.", rich_help_panel=_IMAGES
        ),
    ] = None,
    aux_per_class: Annotated[
        int,
        typer.Option(
            min=2,
            help="Auxiliary images of each class the server holds.",
            rich_help_panel=_IMAGES,
        ),
    ] = 100,
    normalize: Annotated[
        str,
        typer.Option(
            help="Input scaling: half, none, imagenet or MEAN/STD.", rich_help_panel=_IMAGES
        ),
    ] = "half",
    model: Annotated[
        str,
        typer.Option(
            help="Architecture (see rlu models), pkg.mod:factory or file.py:Net.",
            rich_help_panel=_IMAGES,
        ),
    ] = "lenet5",
    model_arg: Annotated[
        list[str] | None,
        typer.Option(
            metavar="K=V", help="Argument of the model; repeatable.", rich_help_panel=_IMAGES
        ),
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(
            help="Checkpoint to start from instead of drawn weights.", rich_help_panel=_IMAGES
        ),
    ] = None,
    clients: Annotated[
        int,
        typer.Option(help="Clients the images are divided among.", rich_help_panel=_FEDERATION),
    ] = 10,
    alpha: Annotated[
        float,
        typer.Option(
            help="Dirichlet concentration: small means few classes a client.",
            rich_help_panel=_FEDERATION,
        ),
    ] = 0.5,
    scheme: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="fedavg, fedprox, scaffold, feddyn or feddc.",
            rich_help_panel=_FEDERATION,
        ),
    ] = "fedavg",
    lambda_: Annotated[
        float,
        typer.Option(
            "--lambda",
            metavar="L",
            help="λ of fedprox, feddyn and feddc.",
            rich_help_panel=_FEDERATION,
        ),
    ] = 0.0,
    rounds: Annotated[
        int | None, typer.Option(help="Rounds [1].", rich_help_panel=_FEDERATION)
    ] = None,
    sample_clients: Annotated[
        int | None,
        typer.Option(
            metavar="C", help="Clients drawn to take part in a round.", rich_help_panel=_FEDERATION
        ),
    ] = None,
    only_clients: Annotated[
        str | None,
        typer.Option(
            metavar="I,J",
            help="In the last round train only these.",
            rich_help_panel=_FEDERATION,
        ),
    ] = None,
    keep: Annotated[
        str,
        typer.Option(
            metavar="all|heads",
            help="heads: cut past rounds down to output layers.",
            rich_help_panel=_FEDERATION,
        ),
    ] = "all",
    seed: Annotated[int, typer.Option(help="Fixes every draw.", rich_help_panel=_FEDERATION)] = 0,
    lr: Annotated[float, typer.Option(help="Learning rate.", rich_help_panel=_CLIENT)] = 0.01,
    batch_size: Annotated[
        int, typer.Option(help="Images in each mini-batch.", rich_help_panel=_CLIENT)
    ] = 32,
    epochs: Annotated[
        int,
        typer.Option(
            help="Local epochs: one mini-batch each, or full passes with --samples.",
            rich_help_panel=_CLIENT,
        ),
    ] = 1,
    samples: Annotated[
        int | None,
        typer.Option(
            metavar="n",
            help="Images each client uses; an epoch is then a pass over them.",
            rich_help_panel=_CLIENT,
        ),
    ] = None,
    drop_last: Annotated[
        bool,
        typer.Option(
            "--drop-last", help="Leave out a last smaller batch.", rich_help_panel=_CLIENT
        ),
    ] = False,
    steps_per_epoch: Annotated[
        int | None,
        typer.Option(metavar="S", help="Full batches in an epoch.", rich_help_panel=_CLIENT),
    ] = None,
    optimizer: Annotated[
        str, typer.Option(metavar="NAME", help="sgd, adam or adamw.", rich_help_panel=_CLIENT)
    ] = "sgd",
    momentum: Annotated[
        float,
        typer.Option(
            metavar="G", help="Momentum γ of sgd, reset each round.", rich_help_panel=_CLIENT
        ),
    ] = 0.0,
    nesterov: Annotated[
        bool, typer.Option("--nesterov", help="Nesterov's momentum.", rich_help_panel=_CLIENT)
    ] = False,
    weight_decay: Annotated[
        float,
        typer.Option(
            metavar="W", help="Weight decay, by the optimizer's rule.", rich_help_panel=_CLIENT
        ),
    ] = 0.0,
    betas: Annotated[
        str,
        typer.Option(metavar="B1,B2", help="Of adam and adamw.", rich_help_panel=_CLIENT),
    ] = "0.9,0.999",
    clip: Annotated[
        float | None,
        typer.Option(metavar="NORM", help="Gradient clipping by norm.", rich_help_panel=_CLIENT),
    ] = None,
    label_smoothing: Annotated[
        float, typer.Option(metavar="E", help="Label smoothing ε.", rich_help_panel=_CLIENT)
    ] = 0.0,
    lr_schedule: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="constant, step:K:G, cosine:T or linear:END, inside the round.",
            rich_help_panel=_CLIENT,
        ),
    ] = "constant",
    pretrain: Annotated[
        float | None,
        typer.Option(
            metavar="ACC",
            help="Train in one place, on all clients' images, to this training accuracy first.",
            rich_help_panel=_BEFORE,
        ),
    ] = None,
    train_to: Annotated[
        float | None,
        typer.Option(
            metavar="ACC",
            help="Rounds until the global model has this training accuracy, then one more "
            f"(--rounds: at most so many before it [{MOST_ROUNDS}]).",
            rich_help_panel=_BEFORE,
        ),
    ] = None,
    noise: Annotated[
        float,
        typer.Option(
            metavar="S",
            help="Standard deviation of Gaussian noise on gradients.",
            rich_help_panel=_DEFENCE,
        ),
    ] = 0.0,
    noise_on: Annotated[
        str,
        typer.Option(
            metavar="batch|sample",
            help="Noise on a step's mean gradient, or on every sample's before the mean.",
            rich_help_panel=_DEFENCE,
        ),
    ] = "batch",
    topk: Annotated[
        float | None,
        typer.Option(
            metavar="F",
            help="Share of the update that is sent, the largest first.",
            rich_help_panel=_DEFENCE,
        ),
    ] = None,
    dp_noise: Annotated[
        float | None,
        typer.Option(
            metavar="SIGMA",
            help="Noise multiplier of DP-SGD (needs opacus).",
            rich_help_panel=_DEFENCE,
        ),
    ] = None,
    dp_clip: Annotated[
        float | None,
        typer.Option(
            metavar="C", help="Per-sample norm bound of DP-SGD.", rich_help_panel=_DEFENCE
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Draw who owns what (needs matplotlib)."),
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
    from rlu_cli.evidence.forward import choose_device
    from rlu_cli.simulator.defences import Defence
    from rlu_cli.simulator.local import Local
    from rlu_cli.simulator.partition_plot import check_plot
    from rlu_cli.simulator.plan import Plan
    from rlu_cli.simulator.simulation import Request, prepare

    plan = Plan(
        clients=clients,
        alpha=alpha,
        lr=lr,
        batch_size=batch_size,
        epochs=epochs,
        rounds=(1 if train_to is None else MOST_ROUNDS) if rounds is None else rounds,
        seed=seed,
        only=_client_list(only_clients),
        local=Local(
            scheme=scheme,
            optimizer=optimizer,
            momentum=momentum,
            nesterov=nesterov,
            pull=lambda_,
            weight_decay=weight_decay,
            betas=_two_numbers(betas),
            clip=clip,
            label_smoothing=label_smoothing,
            lr_schedule=lr_schedule,
            samples=samples,
            steps_per_epoch=steps_per_epoch,
            drop_last=drop_last,
        ),
        defence=Defence(noise, noise_on, topk, dp_noise, dp_clip),
        sample_clients=sample_clients,
        pretrain=pretrain,
        train_to=train_to,
        keep=keep,
    )
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
    if plot is not None:
        check_plot(plot)
    simulation = prepare(request, out, force=force)
    if plot is not None:
        _draw(simulation.federation, plot)
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


def _two_numbers(text: str) -> tuple[float, float]:
    try:
        first, second = map(float, text.split(","))
    except ValueError:
        raise UsageError(
            "E101", f"--betas {printable(text)} are not two numbers", hint="as in --betas 0.9,0.999"
        ) from None
    return first, second


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
            f"pretrained in one place to training accuracy {pretrained['reached']:.3f} "
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
