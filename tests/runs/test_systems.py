"""What systems call things, and where each keeps its pairs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import run_folders as lay
import torch

from rlu_cli.errors import InputError, RluError
from rlu_cli.runs import SYSTEMS, Run, choose, open_run

pytest.importorskip("yaml", reason='PyYAML is not installed: pip install "rlu-cli[yaml]"')
Opened = Callable[..., Run]


@pytest.mark.parametrize(
    ("system", "write"),
    [
        ("Flower", lay.flower),
        ("NVFlare", lay.nvflare),
        ("FedML", lay.fedml),
        ("Plato", lay.plato),
        ("HF Trainer", lay.hf_trainer),
        ("Lightning", lay.lightning),
    ],
)
def test_each_system_is_told_from_the_others(system: str, write: lay.Write, opened: Opened) -> None:
    run = opened(write)
    assert run.system == system
    pair = choose(run)
    states = [_state(path) for path in (pair.before, pair.after)]
    assert states == [[0.0, 0.0], [1.0, 1.0]]


def _state(path: Path) -> list[float]:
    from rlu_cli.checkpoints import open_checkpoint

    found: list[float] = open_checkpoint(path).state["w"].tolist()
    return found


def test_every_system_of_the_table_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "runs.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1].strip(" `") for line in page.splitlines() if line.startswith("|")]
    assert rows[2:] == list(SYSTEMS)


def _fedml(folder: Path, before: lay.State, after: lay.State, old: str, new: str) -> None:
    lay.fedml(folder, before, after)
    path = folder / "config" / "fedml_config.yaml"
    lay.write(path, path.read_text("utf-8").replace(old, new))


def test_a_proximal_scheme_has_its_factor(opened: Opened) -> None:
    told = '"FedProx"\n  fedprox_mu: 0.1'
    found = opened(_fedml, '"FedAvg"', told).values
    assert (found["scheme"].value, found["lambda"].value) == ("fedprox", 0.1)


def test_a_factor_that_fedavg_does_not_use_is_not_taken(opened: Opened) -> None:
    found = opened(_fedml, '"FedAvg"', '"FedAvg"\n  fedprox_mu: 0.1').values
    assert found["scheme"].value == "fedavg"
    assert "lambda" not in found


@pytest.mark.parametrize("name", ["SCAFFOLD", "FedDyn"])
def test_schemes_by_their_own_spelling(name: str, opened: Opened) -> None:
    assert opened(_fedml, "FedAvg", name).values["scheme"].value == name.lower()


def test_a_scheme_that_is_not_known_is_said(opened: Opened) -> None:
    run = opened(_fedml, "FedAvg", "FedNova")
    assert "scheme" not in run.values
    assert any("FedNova" in note for note in run.notes)


def test_weight_decay_that_fedml_gives_to_adam_alone(opened: Opened) -> None:
    run = opened(_fedml, "x", "x")
    assert "weight_decay" not in run.values
    assert any("weight decay" in note for note in run.notes)


def test_weight_decay_of_adam(opened: Opened) -> None:
    found = opened(_fedml, "client_optimizer: sgd", "client_optimizer: adam").values
    assert (found["optimizer"].value, found["weight_decay"].value) == ("adam", 0.001)


def test_flowers_proximal_term_makes_the_scheme(opened: Opened) -> None:
    def proximal(folder: Path, before: lay.State, after: lay.State) -> None:
        lay.flower(folder, before, after)
        lay.write(folder / "pyproject.toml", f"{lay.FLOWER}proximal-mu = 0.5\n")

    found = opened(proximal).values
    assert (found["scheme"].value, found["lambda"].value) == ("fedprox", 0.5)


def test_what_a_round_used_goes_before_the_projects(opened: Opened) -> None:
    """Flower's --run-config changes values that pyproject.toml does not."""

    def changed(folder: Path, before: lay.State, after: lay.State) -> None:
        lay.flower(folder, before, after)
        record = {"config": {"learning-rate": 0.5, "momentum": 0.9}, "samples": {"c10": 16}}
        lay.write(folder / "rounds" / "r002" / "round.json", json.dumps(record))

    found = choose(opened(changed)).values
    assert (found["lr"].value, found["momentum"].value) == (0.5, 0.9)
    assert found["batch_size"].value == 8


def test_nvflares_scaffold(opened: Opened) -> None:
    def scaffold(folder: Path, before: lay.State, after: lay.State) -> None:
        lay.nvflare(folder, before, after)
        (path,) = folder.rglob("config_fed_server.json")
        lay.write(path, path.read_text("utf-8").replace("fedavg.FedAvg", "scaffold.Scaffold"))

    assert opened(scaffold).values["scheme"].value == "scaffold"


def test_arguments_of_a_learner(opened: Opened) -> None:
    def learner(folder: Path, before: lay.State, after: lay.State) -> None:
        lay.nvflare(folder, before, after)
        args = {"aggregation_epochs": 4, "lr": 0.2, "fedproxloss_mu": 1e-5, "epochs": 9}
        config = {"components": [{"id": "learner", "path": "x.Learner", "args": args}]}
        for path in folder.rglob("config_fed_client.json"):
            lay.write(path, json.dumps(config))

    found = choose(opened(learner)).values
    values = {name: found[name].value for name in ("epochs", "lr", "lambda", "scheme")}
    assert values == {"epochs": 4, "lr": 0.2, "lambda": 1e-5, "scheme": "fedprox"}


def test_platos_clients_started_from_the_last_model_but_one(opened: Opened) -> None:
    pair = choose(opened(lay.plato))
    assert pair.before.name == "checkpoint_lenet_5_1.pth"
    assert pair.exchange.client == "3"


def test_plato_does_not_keep_the_model_before_its_first_round(opened: Opened) -> None:
    def one_round(folder: Path, before: lay.State, after: lay.State) -> None:
        lay.plato(folder, before, after)
        (folder / "checkpoints" / "checkpoint_lenet_5_2.pth").unlink()

    with pytest.raises(InputError) as caught:
        choose(opened(one_round))
    assert caught.value.code == "E232"
    assert "before the first" in caught.value.why


def test_the_last_version_of_lightning_counts(opened: Opened) -> None:
    assert choose(opened(lay.lightning)).values["lr"].value == 0.01


def test_rounds_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    lay.write(tmp_path / "pyproject.toml", lay.FLOWER)
    for number in (2, 10, 9):
        torch_round = tmp_path / f"r{number}"
        lay.write_round(torch_round, {"w": torch.zeros(1)}, {"c2": {}, "c10": {}, "c9": {}})
    found = [(one.round, one.client) for one in open_run(tmp_path).exchanges]
    assert found == [(n, c) for n in (2, 9, 10) for c in ("c2", "c9", "c10")]


def test_links_are_not_followed(tmp_path: Path) -> None:
    """A run folder could otherwise name any file of the machine as its pair."""
    outside = tmp_path / "outside"
    lay.write_round(outside / "r001", {"w": torch.zeros(1)}, {"c1": {}})
    run = tmp_path / "run"
    lay.write(run / "pyproject.toml", lay.FLOWER)
    (run / "linked").symlink_to(outside, target_is_directory=True)
    (run / "r002").mkdir()
    for name in ("global.pt", "c1.pt"):
        (run / "r002" / name).symlink_to(outside / "r001" / name)
    assert open_run(run).exchanges == ()


def test_a_folder_with_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlu_cli.runs.folder._MAX_FILES", 3)
    for number in range(4):
        lay.write(tmp_path / f"{number}.txt", "")
    with pytest.raises(InputError) as caught:
        open_run(tmp_path)
    assert caught.value.code == "E232"


@pytest.mark.parametrize(
    ("write", "file"),
    [
        (lay.flower, "pyproject.toml"),
        (lay.flower, "round.json"),
        (lay.nvflare, "config_fed_client.json"),
        (lay.hf_trainer, "trainer_state.json"),
        (lay.lightning, "hparams.yaml"),
    ],
)
@pytest.mark.parametrize("content", [b"\xff\xfe", b"{", b"[" * 100_000, b"a: b: c"])
def test_a_file_that_cannot_be_read_is_named(
    write: lay.Write, file: str, content: bytes, tmp_path: Path
) -> None:
    write(tmp_path, {"w": torch.zeros(1)}, {"w": torch.ones(1)})
    for path in tmp_path.rglob(file):
        path.write_bytes(content)
    with pytest.raises(RluError) as caught:
        open_run(tmp_path)
    assert caught.value.code == "E201"
    assert file in caught.value.message


@pytest.mark.parametrize("content", ["[]", "null", "3", '"text"'])
@pytest.mark.parametrize(
    ("write", "file"),
    [
        (lay.flower, "round.json"),
        (lay.nvflare, "config_fed_client.json"),
        (lay.nvflare, "config_fed_server.json"),
        (lay.hf_trainer, "trainer_state.json"),
        (lay.lightning, "hparams.yaml"),
    ],
)
def test_another_value_than_a_table_tells_nothing(
    content: str, write: lay.Write, file: str, tmp_path: Path
) -> None:
    write(tmp_path, {"w": torch.zeros(1)}, {"w": torch.ones(1)})
    for path in tmp_path.rglob(file):
        path.write_text(content, encoding="utf-8")
    assert choose(open_run(tmp_path)).after.exists()
