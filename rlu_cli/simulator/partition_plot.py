"""The picture of the paper's Figures 10 and 11: who owns how much of each class, as a PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rlu_cli.errors import UsageError, printable
from rlu_cli.simulator.files import write_whole

NAMES_SHOWN = 40
_PNG = b"\x89PNG"


def check_plot(file: Path) -> None:
    """Raises UsageError E107 without matplotlib, E106 where something else would be overwritten."""
    if find_spec("matplotlib") is None:
        raise UsageError(
            "E107", "--plot needs the package matplotlib", hint='pip install "rlu-cli[plot]"'
        )
    if file.exists() and not _is_png(file):
        raise UsageError(
            "E106",
            f"refused to write the picture to {printable(file)}",
            why="something that is no PNG is there",
            hint="name another file",
        )


def _is_png(file: Path) -> bool:
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        return stream.read(len(_PNG)) == _PNG


def plot_partition(counts: NDArray[np.int64], class_names: Sequence[str], file: Path) -> None:
    """Draw counts (clients, N): a column for each client, a row for each class, darker for more."""
    from matplotlib.figure import Figure

    clients, classes = counts.shape
    figure = Figure(figsize=(2 + 0.4 * min(clients, 40), 1.5 + 0.3 * min(classes, 60)))
    axes = figure.add_subplot(xlabel="client", ylabel="class")
    shades = axes.imshow(counts.T, cmap="Blues", aspect="auto", interpolation="nearest", vmin=0)
    axes.set_xticks(range(0, clients, -(-clients // 20)))
    if classes <= NAMES_SHOWN:
        axes.set_yticks(range(classes), [_plain(name) for name in class_names])
    figure.colorbar(shades, label="images")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, bbox_inches="tight", metadata={"Software": None})
    write_whole(file, buffer.getbuffer())


def _plain(name: str) -> str:
    """A class name without control characters, and without matplotlib's mark of formulas."""
    return printable(name, 24).replace("$", r"\$")
