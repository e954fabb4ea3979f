"""Write measurements as Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlu_cli import __version__
from rlu_cli.attacks import ATTACKS
from rlu_cli.errors import printable
from rlu_cli.experiments.cell import PRINTED_METHODS
from rlu_cli.experiments.lab import Lab
from rlu_cli.experiments.measure import Left, Row
from rlu_cli.experiments.summary import OWN, best_other, cell_text, mean_of, verdict
from rlu_cli.simulator.files import write_whole

PARTS = ("error", "weights", "rounding")
EXPLAINED = (
    "Each value: ours as mean ± standard error (clients) / the paper's. *aux*: auxiliary images "
    "of each class. *twice*: clients that own fewer images than went into their update, and so "
    "used some twice. *best other*: the method with the highest mean iAcc besides RLU, of all that "
    "were run (the CSV has each). *even*: iAcc of a uniform guess. *lost to*: sources of RLU's "
    "wrong labels, as shares of all labels: estimation (P) / step weights, unavoidable for any "
    "estimate from Δb / rounding. *verdict*: whether RLU's iAcc is at least the paper's and at "
    "least that of every method in the row, or within two standard errors."
)


def write_table(
    lab: Lab,
    name: str,
    title: str,
    rows: Sequence[Row],
    left: Sequence[Left],
    *,
    metrics: Sequence[str] = ("iacc",),
    methods: Sequence[str] = PRINTED_METHODS,
    notes: Sequence[str] = (),
) -> list[Path]:
    """Write NAME.md, which puts the paper's values beside ours, and NAME.csv with every client.

    metrics, methods  those with their own columns
    notes             sentences below the table
    """
    shown = [method for method in methods if method in lab.methods]
    header = ["row", "images", "aux", "clients", "twice", *_headings(shown, metrics)]
    header += ["best other", "even", "lost to", "verdict"]
    lines = [_line(row, shown, metrics) for row in rows]
    dates = {record["date"] for row in rows for record in row.records}
    text = "\n\n".join(
        [
            f"# {title}",
            caption(lab, sorted(dates)),
            EXPLAINED,
            markdown_table(header, lines),
            *_left_out(left),
            *notes,
        ]
    )
    return [
        write_text(lab.out / f"{name}.md", text + "\n"),
        write_csv(lab.out / f"{name}.csv", client_lines(name, rows)),
    ]


def caption(lab: Lab, dates: Sequence[str]) -> str:
    """Command, scale, version, seed, device and dates, to reproduce the run."""
    when = " to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else ""
    return (
        f"`{printable(lab.command, 1000)}`, scale {lab.scale.name}, rlu {__version__}, seed 0, "
        f"device {lab.device.type}, {when}."
    )


def _headings(methods: Sequence[str], metrics: Sequence[str]) -> list[str]:
    names = {"cacc": "cAcc", "iacc": "iAcc"}
    return [f"{ATTACKS[method].title} {names[metric]}" for method in methods for metric in metrics]


def _line(row: Row, methods: Sequence[str], metrics: Sequence[str]) -> list[str]:
    other = best_other(row)
    best = "–" if other is None else f"{ATTACKS[other].title} {cell_text(row, other, 'iacc')}"
    return [
        row.cell.name,
        f"{images_text(row)}; {row.setup.title}, {row.setup.act}",
        auxiliary_text(row),
        f"{len(row.records)} of {row.setup.clients}",
        str(row.twice),
        *(cell_text(row, method, metric) for method in methods for metric in metrics),
        best,
        f"{row.floor:.3f}",
        _error_parts(row),
        verdict(row),
    ]


def images_text(row: Row) -> str:
    """Name and number of the clients' images."""
    return f"{row.images}, {row.records[0]['images']:,} training images"


def auxiliary_text(row: Row) -> str:
    """Auxiliary images of each class, and their source if it is not the clients'."""
    whose = "" if row.auxiliary == row.images else f" of {row.auxiliary}"
    return f"{row.per_class}{whose}"


def _error_parts(row: Row) -> str:
    splits = [record["split"] for record in row.records if record["split"]]
    means = [mean_of([split[part] for split in splits]) for part in PARTS]
    return " / ".join("–" if mean is None else f"{mean.value:.3f}" for mean in means)


def _left_out(left: Sequence[Left]) -> list[str]:
    if not left:
        return []
    return ["Not run:", "\n".join(f"- {one.name}: {printable(one.why, 400)}" for one in left)]


def markdown_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A pipe table; pipes in cells are escaped."""
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join(
        f"| {' | '.join(c.replace('|', chr(92) + '|') for c in row)} |" for row in rows
    )


def client_lines(target: str, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One line for every row, client and method."""
    return [
        {
            "target": target,
            "row": row.cell.name,
            "dataset": row.setup.dataset,
            "images": row.images,
            "training_images": record["images"],
            **_settings(row),
            "auxiliary": row.auxiliary,
            "aux_per_class": row.per_class,
            "client": record["client"],
            "own_images": record["own"],
            "train_accuracy": record["reached"],
            "method": method,
            **{metric: outcome.get(metric) for metric in ("cacc", "iacc", "exact")},
            **{
                f"paper_{metric}": row.cell.paper.get(method, {}).get(metric)
                for metric in ("cacc", "iacc")
            },
            "even_iacc": record["floor"]["iacc"],
            **_split_columns(record["split"] if method == OWN else None),
            "status": outcome.get("status") or outcome.get("refused"),
            "date": record["date"],
            "version": __version__,
        }
        for row in rows
        for record in row.records
        for method, outcome in record["methods"].items()
    ]


def _settings(row: Row) -> dict[str, Any]:
    setup = row.setup
    return {
        "model": setup.title,
        "activation": setup.act,
        "m": setup.steps,
        "batch_size": setup.batch,
        "lr": setup.lr,
        "alpha": setup.alpha,
        "scheme": setup.scheme,
        "lambda": setup.pull,
        "momentum": setup.momentum,
        "nesterov": setup.nesterov,
        "noise": setup.noise,
        "noise_on": setup.noise_on if setup.noise else None,
        "round": setup.rounds,
    }


def _split_columns(split: Mapping[str, float] | None) -> dict[str, float | None]:
    return {f"lost_{part}": None if split is None else split[part] for part in PARTS}


def write_csv(file: Path, lines: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows of the same columns; None is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return write_text(file, text.getvalue())


def write_text(file: Path, text: str) -> Path:
    """Write a text file atomically, and return its path."""
    write_whole(file, text.encode())
    return file
