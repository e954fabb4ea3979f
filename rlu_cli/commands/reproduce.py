"""`rlu reproduce`: the paper's tables and figures, on the user's images."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlu_cli.commands.alone import alone_in
from rlu_cli.commands.options import completed
from rlu_cli.errors import InputError, UsageError, printable
from rlu_cli.experiments import TARGETS, Nothing

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from rlu_cli.experiments.lab import Lab, Watch

ALL = "all"
_LISTED = "\n".join(f"  {target.name:<9} {target.shows}" for target in TARGETS.values())
# \b keeps the lines of a paragraph as they are.
_ABOUT = f"""Run the paper's experiments, and put its figures beside the measured ones.

\b
Targets:
{_LISTED}

Each writes OUT/NAME.md (the paper's figure beside ours: mean, standard error, clients), \
OUT/NAME.csv (every method and client) and, for a figure, OUT/NAME.png; their paths are printed.

What was measured is kept in OUT/results.jsonl, one line a client, and not measured again: a \
killed run goes on where it was. Delete that file to attack anew.

Checkpoints lie in OUT/runs, 1.6 GB for a row of VGG-16 with ten clients: at scale small some \
20 GB for table2, 25 GB for table4. Delete that folder whenever you like; rows in results.jsonl \
do not need it.
"""

Scale = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        autocompletion=completed(lambda: ("full", "small", "smoke")),
        help="full: the paper's sizes, best on a GPU. small: the same with fewer clients of "
        "the large models; two cores take about half an hour each for table2 and table4. "
        "smoke: drawn digits, seconds, no --data.",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="auto, cpu or cuda.",
        autocompletion=completed(lambda: ("auto", "cpu", "cuda")),
    ),
]


def reproduce(
    target: Annotated[
        list[str],
        typer.Argument(
            metavar="TARGET",
            help="all, or some of those listed above.",
            autocompletion=completed(lambda: (ALL, *TARGETS)),
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write; a killed run is resumed.")],
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of your images: CIFAR10, CIFAR100, SVHN, tiny-imagenet-200, … each as "
            "published, as a folder per class or as NAME.npz. Rows without images are left out."
        ),
    ] = None,
    scale: Scale = "small",
    clients: Annotated[
        int | None,
        typer.Option(
            metavar="C", min=1, help="Attack clients 0 to C-1 of each row, whatever the scale."
        ),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN", help="Rows to run, by name, as in 'CIFAR10-*-m10' (quote it)."
        ),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Methods to run besides rlu (default: all that train nothing).",
        ),
    ] = None,
    device: Device = "auto",
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Only the paths written, no progress.")
    ] = False,
    no_progress: Annotated[
        bool, typer.Option("--no-progress", help="A line for each client instead of a bar.")
    ] = False,
) -> None:
    wanted = _targets(target)
    lab = _lab(data, out, scale, clients, only, methods, device)
    with alone_in(out):
        _run_all(wanted, lab, quiet=quiet, bar=not no_progress)


reproduce.__doc__ = _ABOUT


def _run_all(wanted: list[str], lab: Lab, *, quiet: bool, bar: bool) -> None:
    """Run target after target, printing the files of each. Raises InputError E201 if none can."""
    nothing: dict[str, str] = {}
    for name in wanted:
        with _watch(quiet=quiet, bar=bar) as watch:
            try:
                paths = TARGETS[name].load()(_watched(lab, watch), name)
            except Nothing as reason:
                nothing[name] = str(reason)
                continue
        for path in paths:
            typer.echo(path)
    _tell_missing(nothing, of=len(wanted), quiet=quiet)


def _targets(names: list[str]) -> list[str]:
    unknown = [name for name in names if name not in TARGETS and name != ALL]
    if unknown:
        raise UsageError(
            "E101",
            f"no target {', '.join(printable(name) for name in unknown)}",
            hint=f"targets: {', '.join(TARGETS)}, {ALL}",
        )
    return list(TARGETS) if ALL in names else list(dict.fromkeys(names))


def _lab(
    data: Path | None,
    out: Path,
    scale: str,
    clients: int | None,
    only: str | None,
    methods: str | None,
    device: str,
) -> Lab:
    from rlu_cli.evidence.forward import choose_device
    from rlu_cli.experiments.lab import QUICK, Lab
    from rlu_cli.experiments.scale import SCALES

    if scale not in SCALES:
        raise UsageError("E101", f"no scale {printable(scale)}", hint=f"--scale {'|'.join(SCALES)}")
    if data is None and not SCALES[scale].trial:
        raise UsageError(
            "E102",
            f"scale {scale} needs images",
            hint="name their folder with --data DIR, or try --scale smoke",
        )
    if data is not None and not data.is_dir():
        raise InputError(
            "E201", f"no folder {printable(data)}", hint="give the folder your images are in"
        )
    _make(out)
    return Lab(
        data=data,
        out=out,
        scale=SCALES[scale],
        device=choose_device(device),
        command=shlex.join(["rlu", *sys.argv[1:]]),
        only=only,
        most=clients,
        methods=QUICK if methods is None else _methods(methods),
    )


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise UsageError(
            "E106",
            f"cannot write to {printable(out)}",
            why=printable(problem),
            hint="give a folder that can be made with --out",
        ) from None


def _methods(text: str) -> tuple[str, ...]:
    from rlu_cli.attacks import ATTACKS

    named = ("rlu", *(part.strip() for part in text.split(",")))
    unknown = [name for name in named if name not in ATTACKS]
    if unknown:
        raise UsageError(
            "E101",
            f"no method {', '.join(printable(name) for name in unknown)}",
            hint=f"methods: {', '.join(ATTACKS)}",
        )
    return tuple(dict.fromkeys(named))


def _watched(lab: Lab, watch: Watch) -> Lab:
    from dataclasses import replace

    return replace(lab, watch=watch)


def _tell_missing(nothing: dict[str, str], *, of: int, quiet: bool) -> None:
    """What could not be run. Raises InputError E201 when that is everything."""
    if len(nothing) == of:
        raise InputError(
            "E201",
            "nothing can be run",
            facts=[(name, printable(why, 400)) for name, why in nothing.items()],
            hint="put the images into the folder of --data, name rows as they are called with "
            "--only, or try --scale smoke",
        )
    for name, why in nothing.items():
        if not quiet:
            typer.echo(f"{name} not run: {printable(why, 400)}", err=True)


@contextmanager
def _watch(*, quiet: bool, bar: bool) -> Iterator[Watch]:
    """Nothing, a bar on a terminal, or a line on stderr for each client."""
    from rlu_cli.experiments.lab import Silent

    if quiet:
        yield Silent()
    elif not bar or not sys.stderr.isatty():
        yield _Lines()
    else:
        from rich.console import Console
        from rich.progress import Progress

        console = Console(stderr=True, markup=False, highlight=False)
        with Progress(console=console, transient=True) as progress:
            yield _Bar(progress, progress.add_task("starting", total=None))


class _Lines:
    """A line for each client that is done."""

    def expect(self, clients: int) -> None: ...

    def say(self, text: str) -> None: ...

    def done(self, text: str = "") -> None:
        if text:
            typer.echo(text, err=True)


class _Bar:
    """A bar over the clients of a target."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def expect(self, clients: int) -> None:
        self._progress.update(self._task, total=clients)

    def say(self, text: str) -> None:
        self._progress.update(self._task, description=text)

    def done(self, text: str = "") -> None:
        self._progress.advance(self._task)
