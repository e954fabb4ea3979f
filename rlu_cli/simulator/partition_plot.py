"""Plot of images per client and class, as in the paper's Figures 10 and 11."""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rlu_cli.errors import UsageError, printable
from rlu_cli.simulator.files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMES_SHOWN = 40
_PNG = b"\x89PNG"


def require_matplotlib(what: str) -> None:
    """Raises UsageError E107, which names `what` needs matplotlib, if it is not installed."""
    if find_spec("matplotlib") is None:
        raise UsageError(
            "E107", f"{what} needs the package matplotlib", hint='pip install "rlu-cli[plot]"'
        )


def check_plot(file: Path) -> None:
    """Raises UsageError E107 without matplotlib, E106 if a file that is no PNG is in the way."""
    require_matplotlib("--plot")
    if file.exists() and not _is_png(file):
        raise UsageError(
            "E106",
            f"refused to write the picture to {printable(file)}",
            why="it exists and is no PNG",
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
    draw_partition(figure.add_subplot(), counts, class_names)
    save_png(figure, file)


def draw_partition(axes: Axes, counts: NDArray[np.int64], class_names: Sequence[str]) -> None:
    """Draw counts (clients, N) into `axes`, with its own colour scale."""
    clients, classes = counts.shape
    axes.set(xlabel="client", ylabel="class")
    shades = axes.imshow(counts.T, cmap="Blues", aspect="auto", interpolation="nearest", vmin=0)
    axes.set_xticks(range(0, clients, -(-clients // 20)))
    if classes <= NAMES_SHOWN:
        axes.set_yticks(range(classes), [_plain(name) for name in class_names])
    axes.figure.colorbar(shades, ax=axes, label="images")


def save_png(figure: Figure, file: Path) -> None:
    """Write a figure as a PNG; the same data always give the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, bbox_inches="tight", metadata={"Software": None})
    write_whole(file, buffer.getbuffer())


def _plain(name: str) -> str:
    """A class name with control characters and matplotlib's formula mark escaped."""
    return printable(name, 24).replace("$", r"\$")
