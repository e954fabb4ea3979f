"""The picture of the partition: a PNG, darker where a client owns more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rlu_cli.errors import UsageError
from rlu_cli.simulator import partition_plot
from rlu_cli.simulator.partition_plot import check_plot, plot_partition


@pytest.mark.parametrize(("clients", "classes"), [(1, 1), (3, 10), (50, 200)])
def test_it_is_a_picture(tmp_path: Path, clients: int, classes: int) -> None:
    pytest.importorskip("matplotlib")
    counts = np.arange(clients * classes).reshape(clients, classes)
    file = tmp_path / "p.png"
    plot_partition(counts, [f"$_{{{n}\x1b" for n in range(classes)], file)
    with Image.open(file) as picture:
        assert picture.format == "PNG"
    check_plot(file)


def test_more_images_are_darker(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    few, many = (tmp_path / name for name in ("few.png", "many.png"))
    counts = np.zeros((4, 4), dtype=np.int64)
    counts[0, 0] = 100
    plot_partition(counts, "abcd", few)
    plot_partition(100 - counts, "abcd", many)
    assert _brightness(many) < _brightness(few)


def _brightness(file: Path) -> float:
    with Image.open(file) as picture:
        return float(np.asarray(picture.convert("L"), dtype=float).mean())


def test_nothing_else_is_overwritten(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "thesis.txt").write_text("mine")
    for taken in (tmp_path / "thesis.txt", tmp_path):
        with pytest.raises(UsageError) as caught:
            check_plot(taken)
        assert caught.value.code == "E106"


def test_without_matplotlib_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition_plot, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="matplotlib") as caught:
        check_plot(tmp_path / "p.png")
    assert caught.value.code == "E107"
