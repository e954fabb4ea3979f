"""What nobody gave: steps, rate and batch size from BatchNorm buffers, and what cannot be known."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_world import Command, Refused, State, Words, write_pair

from rlu_cli.simulator.digits import draw_digits

STEPS, BATCH, RATE = 12, 32, 0.001
SHARES = torch.tensor([0.0, 0.4, 0.05, 0.2, 0.0, 0.1, 0.15, 0.0, 0.0, 0.1])
CODE = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self, num_classes=10):
        super().__init__(
            nn.Conv2d(3, 12, 5, 2, 2), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(12, 32, 3, 1, 1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, 1, 1), nn.BatchNorm2d(64), nn.ReLU(),
            nn.Flatten(), nn.Linear(64 * 16, num_classes),
        )
"""
LAST = "9.num_batches_tracked"


@dataclass(frozen=True)
class Trained:
    """A BatchNorm network that has learned the digits, and a client's round on it."""

    folder: Path
    before: State
    after: State
    counts: list[int]

    @property
    def words(self) -> list[str]:
        return self.of(self.before, self.after, self.folder / "aux.npz")

    def of(self, before: State, after: State, aux: Path) -> list[str]:
        pair = write_pair(aux.parent / "pair", before, after)
        model = ["--model", f"{self.folder / 'net.py'}:Net", "--normalize", "half"]
        return ["attack", *pair, "--aux", str(aux), *model, "--format", "json"]

    def counted(self, passes: dict[str, float], folder: Path) -> list[str]:
        """The same with counters of another reading."""
        after = {n: torch.tensor(passes.get(n, float(v))) for n, v in self.after.items()
                 if n.endswith("num_batches_tracked")}  # fmt: skip
        aux = folder / "aux.npz"
        aux.write_bytes((self.folder / "aux.npz").read_bytes())
        before = {n: v * 0.0 if n in after else v for n, v in self.before.items()}
        return self.of(before, {**self.after, **after}, aux)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Global model, client and server each have images of their own."""
    folder = tmp_path_factory.mktemp("untold")
    (folder / "net.py").write_text(CODE)
    scope: dict[str, Any] = {"__name__": "net"}
    exec(CODE, scope)
    torch.manual_seed(0)
    net = scope["Net"]().train()
    optimiser = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    images, classes = _drawn(150, seed=1)
    for _ in range(5):
        for batch in torch.split(torch.randperm(len(classes)), 50):
            _step(net, optimiser, images[batch], classes[batch])
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    images, classes = _drawn(80, seed=3)
    batches = torch.multinomial(SHARES[classes], STEPS * BATCH).view(STEPS, BATCH)
    optimiser = torch.optim.SGD(net.parameters(), lr=RATE)
    for batch in batches:
        _step(net, optimiser, images[batch], classes[batch])
    pixels, labels = draw_digits(60, seed=2)
    np.savez(folder / "aux.npz", images=pixels, labels=labels)
    counts = torch.bincount(classes[batches.flatten()], minlength=10).tolist()
    return Trained(folder, before, dict(net.state_dict()), counts)


def _drawn(per_class: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    pixels, labels = draw_digits(per_class, seed=seed)
    shown = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 * 2 - 1
    return shown, torch.from_numpy(labels)


def _step(net: Any, optimiser: Any, images: torch.Tensor, classes: torch.Tensor) -> None:
    optimiser.zero_grad()
    loss = torch.nn.functional.cross_entropy(net(images), classes)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()


def _warned(report: dict[str, Any], code: str) -> list[str]:
    return [warning["text"] for warning in report["warnings"] if warning["code"] == code]


# Steps


def test_the_steps_are_taken_from_the_counters(trained: Trained, rlu: Command) -> None:
    report = rlu(*trained.words, "--lr", RATE, "--batch-size", BATCH).report
    told = rlu(*trained.words, "--lr", RATE, "--batch-size", BATCH, "--epochs", STEPS).report
    assert report["result"] == told["result"]
    source = f"inferred from BatchNorm counters, all 3 layers count {STEPS}"
    assert report["settings"]["epochs"] == {"value": STEPS, "source": source}
    hint = "If clients make full passes over their data, add --samples N."
    assert report["assumptions"][0] == f"{STEPS} steps {source}. {hint}"
    assert told["assumptions"][0].endswith(f" batches in total. {hint}")
    assert not _warned(report, "W304")


def test_full_passes_are_counted_too(trained: Trained, rlu: Command, refused: Refused) -> None:
    words = [*trained.words, "--lr", RATE, "--batch-size", BATCH]
    for samples, more, passes in ((190, (), 2), (96, (), 4), (100, ("--drop-last",), 4)):
        report = rlu(*words, "--samples", samples, *more).report
        assert report["settings"]["epochs"]["value"] == passes
        assert report["settings"]["epochs"]["source"].startswith("inferred from BatchNorm counters")
        assert report["result"]["passes"] == passes
        assert not _warned(report, "W304")
    assert rlu(*words, "--steps-per-epoch", 3).report["settings"]["epochs"]["value"] == 4
    rest = [*map(str, words), "--samples", "150"]
    refused("E102", 2, rest, "12 steps in all", "not a whole number of epochs of 5", "--epochs M")


def test_redacted_the_source_stays(trained: Trained, rlu: Command) -> None:
    settings = rlu(*trained.words, "--lr", RATE, "--redact").report["settings"]
    assert settings["epochs"]["source"].startswith("inferred from BatchNorm counters")


def test_shown_settings_have_the_steps(trained: Trained, rlu: Command) -> None:
    shown = rlu(*trained.words, "--lr", RATE, "--show-settings")
    assert shown.status == 0
    assert f"all 3 layers count {STEPS}" in shown.out


def test_the_majority_decides_and_the_rest_is_said(
    trained: Trained, tmp_path: Path, rlu: Command
) -> None:
    words = trained.counted({"1.num_batches_tracked": 12, "5.num_batches_tracked": 12, LAST: 24},
                            tmp_path)  # fmt: skip
    settings = rlu(*words, "--lr", RATE).report["settings"]
    assert settings["epochs"]["value"] == 12
    assert settings["epochs"]["source"].endswith("12 to 24 over 3 layers, most count 12")


@pytest.mark.parametrize(
    ("passes", "said"),
    [
        ((40, 41, 42), "do not agree on a whole number of steps: 40 to 42 over 3 layers"),
        ((40.5, 40.5, 40.5), "do not agree on a whole number of steps: 40.5 to 40.5"),
        ((0, 0, 0), "did not move"),
    ],
)
def test_counters_that_do_not_tell_are_an_error(
    passes: tuple[float, ...], said: str, trained: Trained, tmp_path: Path, refused: Refused
) -> None:
    names = [f"{n}.num_batches_tracked" for n in (1, 5, 9)]
    words = trained.counted(dict(zip(names, passes, strict=True)), tmp_path)
    refused("E102", 2, [*words, "--lr", "0.1"], "missing setting: epochs", said, "--epochs M")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_counters_too_coarse_to_count_by_ones_are_not_believed(
    kind: torch.dtype, trained: Trained, tmp_path: Path, refused: Refused
) -> None:
    """Half precision goes from 4096 to 4100: the layers agree, on the wrong number."""
    before, after = (
        {n: (v + 4096.0 if "tracked" in n else v).to(kind) for n, v in state.items()}
        for state in (trained.before, trained.after)
    )
    (tmp_path / "aux.npz").write_bytes((trained.folder / "aux.npz").read_bytes())
    words = trained.of(before, after, tmp_path / "aux.npz")
    refused("E102", 2, [*words, "--lr", "0.1"], "missing setting: epochs")


# Batch size


@pytest.mark.parametrize("method", ["auto", "fusion"])
def test_with_nothing_told_there_are_shares_and_their_intervals(
    method: str, trained: Trained, rlu: Command
) -> None:
    report = rlu(*trained.words, "--lr", RATE, "--method", method).report
    result = report["result"]
    chosen = {"auto": "pooled", "fusion": "fusion"}[method]
    assert report["methods"][0]["method"] == chosen
    assert result["total"] is None
    for row in result["counts"]:
        assert row["count"] is row["low"] is row["high"] is row["per_pass"] is None
        assert 0 <= row["share_low"] <= row["share"] <= row["share_high"] <= 1
    truth = torch.tensor(trained.counts) / sum(trained.counts)
    found = torch.tensor([row["share"] for row in result["counts"]])
    assert float((found - truth).abs().sum()) / 2 < 0.1
    assert any("batches of 64" in line for line in report["assumptions"])
    table = rlu(*trained.words, "--lr", "infer", "--method", method, "--format", "table")
    assert table.status == 0
    assert "label shares recovered by fusion" in table.out


def test_a_truth_that_cannot_be_scored_is_said(trained: Trained, work: Path, rlu: Command) -> None:
    (work / "truth.json").write_text(json.dumps(trained.counts))
    report = rlu(*trained.words, "--lr", RATE, "--truth", "truth.json").report
    assert report["metrics"] is None
    assert "not scored: without --batch-size there are no counts" in report["assumptions"]


# Learning rate


def test_a_rate_too_vague_to_be_taken_unasked_is_taken_when_asked(
    trained: Trained, rlu: Command, refused: Refused
) -> None:
    words = [*trained.words, "--batch-size", str(BATCH)]
    refused("E102", 2, words, "missing setting: lr", "±", "--lr ETA", "--lr infer")
    report = rlu(*words, "--lr", "infer").report
    setting = report["settings"]["lr"]
    (said,) = _warned(report, "W322")
    error = float(said.partition("± ")[2].split()[0])
    assert abs(setting["value"] - RATE) < 2 * error
    assert error > 0.1 * setting["value"]
    assert setting["source"].startswith("inferred from BatchNorm means and Δb, ± ")
    assert f"{setting['value']:.3g} ±" in said
    assert sum(row["count"] for row in report["result"]["counts"]) == STEPS * BATCH


def test_the_word_may_stand_in_a_file_too(trained: Trained, work: Path, rlu: Command) -> None:
    (work / "rlu.toml").write_text('lr = "infer"')
    assert rlu(*trained.words).report["settings"]["lr"]["source"].startswith("inferred from")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--weight-decay", "0.1"), ("weight_decay", "--lr ETA")),
        (("--scheme", "fedprox", "--lambda", "0.1"), ("lambda", "--lr ETA")),
        (("--method", "path"), ("--method fusion", "--lr ETA")),
        (("--optimizer", "adam"), ("Adam scales", "omit --lr")),
        (("--clip", "1"), ("clipping by norm", "omit --lr")),
    ],
)
def test_a_rate_that_cannot_be_inferred_is_an_error(
    more: tuple[str, ...], said: tuple[str, ...], trained: Trained, refused: Refused
) -> None:
    refused("E102", 2, [*trained.words, "--lr", "infer", *more], "cannot be inferred", *said)


def test_without_buffers_the_error_says_what_it_would_take(untold: Words, refused: Refused) -> None:
    words = [*untold, "--lr", "infer", "--epochs", "2"]
    refused("E102", 2, words, "cannot be inferred", "BatchNorm", "--lr ETA")


def test_another_word_is_no_rate(untold: Words, refused: Refused) -> None:
    refused("E101", 2, [*untold, "--lr", "guess"], "guess", "a number above 0, or infer")


# What the evidence cannot tell


def _aux(folder: Path, pixels: Any, labels: Any) -> Path:
    names = np.array([f"secret{letter}" for letter in "abcdefghij"])
    np.savez(folder / "aux.npz", images=pixels, labels=labels, class_names=names)
    return folder / "aux.npz"


@pytest.fixture
def twins(trained: Trained, tmp_path: Path) -> list[str]:
    """The server's images of the largest class and of an absent-minded other are the same, and
    fusion has nothing but the layers' mean inputs, in which labels play no part.
    """
    pixels, labels = draw_digits(40, seed=2)
    most = int(np.argmax(trained.counts))
    other = (most + 1) % 10
    pixels[labels == other] = pixels[labels == most]
    words = trained.of(trained.before, trained.after, _aux(tmp_path, pixels, labels))
    words += ["--lr", str(RATE), "--batch-size", str(BATCH), "--optimizer", "adam"]
    return [*words, "--method", "fusion"]


def test_classes_that_look_alike_are_named(
    twins: list[str], trained: Trained, rlu: Command
) -> None:
    report = rlu(*twins).report
    most = int(np.argmax(trained.counts))
    pair = sorted((most, (most + 1) % 10))
    rows = report["result"]["counts"]
    expected = [[m for m in pair if m != n] if n in pair else [] for n in range(10)]
    assert [row["confused_with"] for row in rows] == expected
    (said,) = _warned(report, "W321")
    shown = [f"{n} secret{'abcdefghij'[n]}" for n in pair]
    together = sum(rows[n]["share"] for n in pair)
    assert f"{shown[0]} and {shown[1]} sum to {together:.1%}" in said


@pytest.mark.parametrize("form", ["json", "table"])
def test_redacted_they_are_counted_and_not_named(form: str, twins: list[str], rlu: Command) -> None:
    shown = rlu(*twins, "--format", form, "--redact").out
    assert "2 classes in 1 group" in shown
    assert "secret" not in shown
    if form == "json":
        rows = json.loads(shown)["result"]["counts"]
        assert {row["confused_with"] for row in rows} == {None}


def test_of_a_method_that_knows_no_error_nothing_is_said(trained: Trained, rlu: Command) -> None:
    report = rlu(*trained.words, "--lr", RATE, "--method", "path").report
    assert {row["confused_with"] for row in report["result"]["counts"]} == {None}
    healthy = rlu(*trained.words, "--lr", RATE, "--method", "fusion").report
    assert [row["confused_with"] for row in healthy["result"]["counts"]] == [[]] * 10
    assert not _warned(healthy, "W321")


def test_images_that_tell_nothing_end_with_status_4(
    trained: Trained, tmp_path: Path, rlu: Command
) -> None:
    """Noise in every class: none looks like anything the client has."""
    pixels = np.random.default_rng(0).integers(0, 256, (100, 32, 32, 3)).astype(np.uint8)
    aux = _aux(tmp_path, pixels, np.arange(100) % 10)
    words = trained.of(trained.before, trained.after, aux)
    result = rlu(*words, "--lr", RATE, "--batch-size", BATCH, "--optimizer", "adam")
    report = json.loads(result.out)
    assert result.status == 4
    assert report["result"]["ok"] is False
    assert report["result"]["status"].startswith("no better than a uniform guess")
    assert _warned(report, "W310") == [report["result"]["status"]]
    assert {row["confused_with"] for row in report["result"]["counts"]} == {None}
