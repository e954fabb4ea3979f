"""The picture of the paper's Figures 10 and 11: who owns how much of each class, as a PNG."""

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
    """Raises UsageError E107, naming `what` needs it, where matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        raise UsageError(
            "E107", f"{what} needs the package matplotlib", hint='pip install "rlu-cli[plot]"'
        )


def check_plot(file: Path) -> None:
    """Raises UsageError E107 without matplotlib, E106 where something else would be overwritten."""
    require_matplotlib("--plot")
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
    draw_partition(figure.add_subplot(), counts, class_names)
    save_png(figure, file)


def draw_partition(axes: Axes, counts: NDArray[np.int64], class_names: Sequence[str]) -> None:
    """The same in one panel of a figure, with its own scale of shades."""
    clients, classes = counts.shape
    axes.set(xlabel="client", ylabel="class")
    shades = axes.imshow(counts.T, cmap="Blues", aspect="auto", interpolation="nearest", vmin=0)
    axes.set_xticks(range(0, clients, -(-clients // 20)))
    if classes <= NAMES_SHOWN:
        axes.set_yticks(range(classes), [_plain(name) for name in class_names])
    axes.figure.colorbar(shades, ax=axes, label="images")


def save_png(figure: Figure, file: Path) -> None:
    """Write a figure whole, the same bytes from the same data whenever it is drawn."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, bbox_inches="tight", metadata={"Software": None})
    write_whole(file, buffer.getbuffer())


def _plain(name: str) -> str:
    """A class name without control characters, and without matplotlib's mark of formulas."""
    return printable(name, 24).replace("$", r"\$")
