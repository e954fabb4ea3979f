"""The report: its published schema, its way through JSON, and its table."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rlu_cli.audit.attack import attack
from rlu_cli.audit.finding import CaseFinding
from rlu_cli.case.build import build_case
from rlu_cli.models import build_model
from rlu_cli.reports import FORMATS, Report, build_report
from rlu_cli.reports.schema import Metrics, Notice
from rlu_cli.settings.layers import flag_layer
from rlu_cli.simulator.digits import draw_digits

SCHEMA = Path(__file__).parents[2] / "docs" / "report.schema.json"
NAMES = [*(f"class-{letter}" for letter in "abcdefghi"), "[red]nine[/red]"]
ANSI = "\x1b"


def test_the_published_schema_is_that_of_the_code() -> None:
    """After a change: `python tests/reports/test_report.py` writes the file again.

    Keys once published stay: a key may be added, not renamed or removed.
    """
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == json.loads(_schema_text())


def _schema_text() -> str:
    return json.dumps(Report.model_json_schema(by_alias=True), indent=2) + "\n"


def _train(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
    """Two steps of plain SGD on the same batch."""
    for _ in range(2):
        model.zero_grad()
        loss = nn.functional.cross_entropy(model(images * 2 - 1), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for parameter in model.parameters():
                assert parameter.grad is not None
                parameter.sub_(0.02 * parameter.grad)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """g.pt and c.pt of an untrained LeNet-5, aux.npz with odd class names, truth.json."""
    folder = tmp_path_factory.mktemp("secret-place")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model("lenet5", arguments={"act": "relu"}, classes=10)
    torch.save(model.state_dict(), folder / "g.pt")
    pixels, labels = draw_digits(3, seed=2)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    _train(model, images, torch.from_numpy(labels))
    torch.save(model.state_dict(), folder / "c.pt")
    pixels, labels = draw_digits(8, seed=1)
    np.savez(folder / "aux.npz", images=pixels, labels=labels, class_names=np.array(NAMES))
    (folder / "truth.json").write_text(json.dumps([6] * 10))
    return folder


FLAGS = {
    "lr": "0.02",
    "epochs": "2",
    "batch_size": "30",
    "normalize": "half",
    "model_args": ["act=relu"],
    "draws": "200",
    "device": "cpu",
}


def _find(files: Path, **flags: str | None) -> CaseFinding:
    given = flag_layer({**FLAGS, **flags})
    case = build_case(files / "g.pt", files / "c.pt", str(files / "aux.npz"), given)
    return attack(case, ("rlu",))


@pytest.fixture(scope="module")
def finding(files: Path) -> CaseFinding:
    return _find(files, truth=str(files / "truth.json"))


@pytest.fixture(scope="module")
def report(finding: CaseFinding) -> Report:
    return build_report(finding)


def _refuse(constant: str) -> None:
    pytest.fail(f"{constant} is not JSON")


def _json(report: Report) -> Any:
    return json.loads(FORMATS["json"](report), parse_constant=_refuse)


def test_json_and_back_is_the_same_report(report: Report) -> None:
    text = FORMATS["json"](report)
    assert FORMATS["json"](Report.model_validate_json(text)) == text
    assert text.isascii()
    assert text.endswith("}\n")


def test_the_json_has_the_keys_that_were_promised(report: Report, files: Path) -> None:
    content = _json(report)
    assert content["schema_version"] == "1.4"
    result = content["result"]
    assert result["total"] == 60
    assert [row["index"] for row in result["counts"]] == list(range(10))
    assert [row["class"] for row in result["counts"]] == NAMES
    assert sum(row["count"] for row in result["counts"]) == 60
    assert sum(row["share"] for row in result["counts"]) == pytest.approx(1)
    assert isinstance(result["status"], str)
    assert set(content["metrics"]) == {"cacc", "iacc", "exact", "floor_cacc", "floor_iacc"}
    assert all(set(entry) == {"value", "source"} for entry in content["settings"].values())
    assert content["settings"]["lr"] == {"value": 0.02, "source": "flag"}
    for name in ("global", "local", "aux", "truth"):
        assert set(content["inputs"][name]) == {"path", "sha256"}
        assert content["inputs"][name]["path"].startswith(str(files))
        assert re.fullmatch("[0-9a-f]{64}", content["inputs"][name]["sha256"])
    assert set(content["local_training"]) == {"lr", "batch_size", "steps", "samples"}
    assert content["local_training"]["lr"] == {"value": 0.02, "source": "flag"}
    assert content["local_training"]["samples"]["value"] == 60
    assert content["hypotheses"] == content["readings"]
    assert isinstance(content["diagnostics"], dict)
    assert isinstance(content["warnings"], list)
    assert {"python", "torch", "numpy", "scipy", "device"} <= set(content["environment"])


def test_result_and_metrics_are_those_of_the_first_method(report: Report) -> None:
    content = _json(report)
    first = content["methods"][0]
    assert first["result"] == content["result"]
    assert first["metrics"] == content["metrics"]
    assert first["method"] == "rlu"
    assert first["diagnostics"].items() <= content["diagnostics"].items()
    assert all(warning in content["warnings"] for warning in first["warnings"])


def test_without_truth_there_are_no_metrics(files: Path) -> None:
    content = _json(build_report(_find(files)))
    assert content["metrics"] is None
    assert "truth" not in content["inputs"]


def test_without_a_batch_size_there_are_shares_only(files: Path) -> None:
    found = build_report(_find(files, batch_size=None))
    content = _json(found)
    assert content["result"]["total"] is None
    assert {row["count"] for row in content["result"]["counts"]} == {None}
    assert sum(row["share"] for row in content["result"]["counts"]) == pytest.approx(1)
    assert "label shares recovered" in FORMATS["table"](found)


def test_figures_that_are_not_finite_become_null(report: Report) -> None:
    odd = {"infinite": float("inf"), "missing": float("nan"), "listed": [float("-inf")]}
    content = _json(report.model_copy(update={"diagnostics": odd}))
    assert content["diagnostics"] == {"infinite": None, "missing": None, "listed": [None]}


@pytest.mark.parametrize("name", FORMATS)
def test_redacted_nothing_tells_of_the_client(finding: CaseFinding, files: Path, name: str) -> None:
    shown = FORMATS[name](build_report(finding, redact=True))
    for secret in (*NAMES, "nine", "secret-place", str(files), "truth.json", "aux.npz"):
        assert secret not in shown
    content = _json(build_report(finding, redact=True))
    assert content["redacted"] is True
    rows = content["result"]["counts"]
    assert {value for row in rows for key, value in row.items() if key != "index"} == {None}
    assert content["metrics"] is not None
    assert content["inputs"]["global"]["path"] is None
    assert len(content["inputs"]["global"]["sha256"]) == 64


def test_what_is_piped_has_no_escapes_and_no_cut_cells(report: Report) -> None:
    long = "long-" * 100
    rows = list(report.result.counts)
    rows[3] = rows[3].model_copy(update={"name": long})
    changed = report.result.model_copy(update={"counts": rows})
    shown = FORMATS["table"](report.model_copy(update={"result": changed}))
    assert ANSI not in shown
    assert long in shown
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) < 1000  # no padding up to the widest line there may be


def test_a_terminal_gets_colours_unless_it_says_no(
    report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[" in FORMATS["table"](report, terminal=True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", FORMATS["table"](report, terminal=True))


def test_the_table_shows_every_class_its_count_and_the_scores(report: Report) -> None:
    shown = FORMATS["table"](report)
    for row in report.result.counts:
        cells = f"│ {row.index} {row.name} "
        line = next(line for line in shown.splitlines() if line.startswith(cells))
        assert f" {row.count} " in line
        assert f"{row.share:.1%}" in line
    assert report.metrics is not None
    assert f"{report.metrics.iacc:.4f}" in shown
    assert "uniform guess" in shown
    assert report.result.status in shown
    assert report.assumptions[0] in shown


def test_warnings_are_shown_word_for_word(report: Report) -> None:
    text = "a [bold]name[/bold] and [W999] in brackets"
    odd = report.model_copy(update={"warnings": [Notice(code="W999", text=text)]})
    assert f"warning[W999]: {text}" in FORMATS["table"](odd)


def test_a_long_list_of_classes_leaves_out_the_absent_ones_and_says_so(report: Report) -> None:
    row = report.result.counts[0]
    rows = [
        row.model_copy(
            update={"index": n, "name": f"kind {n}", "count": n == 7, "share": float(n == 7)}
        )
        for n in range(100)
    ]
    result = report.result.model_copy(update={"counts": rows, "total": 1})
    shown = FORMATS["table"](report.model_copy(update={"result": result}))
    assert "7 kind 7" in shown
    assert "kind 8" not in shown
    assert "99 classes without a label are not shown" in shown


def test_an_unknown_key_is_refused(report: Report) -> None:
    content = {**_json(report), "extra": 1}
    with pytest.raises(ValueError, match="extra"):
        Report.model_validate(content)


def test_metrics_are_scores_from_zero_to_one(report: Report) -> None:
    assert isinstance(report.metrics, Metrics)
    assert all(0 <= value <= 1 for value in report.metrics.model_dump().values())


@pytest.mark.parametrize("width", [40, 60, 80])
def test_no_number_is_cut_for_a_long_name(
    width: int, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = report.model_copy(deep=True)
    for row in long.result.counts:
        row.name = "basal_cell_carcinoma_superficial_nodular_type_excised"
    monkeypatch.setenv("COLUMNS", str(width))
    shown = FORMATS["table"](long, terminal=True)
    for row in long.result.counts:
        assert f" {row.count} " in shown
        assert f" {row.share:.1%} " in shown
    assert max(map(len, re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines())) <= width


if __name__ == "__main__":
    SCHEMA.write_text(_schema_text(), encoding="utf-8")
