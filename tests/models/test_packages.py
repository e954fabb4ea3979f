"""Models of installed packages by name: built to fit the weights, and attacked.

Skipped, package by package, where it is not installed.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rlu_cli
from rlu_cli.api.finding import Finding
from rlu_cli.errors import InputError, UsageError
from rlu_cli.models import (
    build_model,
    logit_layers,
    packaged_model,
    possible_layouts,
    runs_code,
)
from rlu_cli.models.fingerprints import FINGERPRINTS
from rlu_cli.simulator.digits import draw_digits
from rlu_cli.types import Auxiliary

COUNTS = [9, 0, 6, 1, 0, 0, 12, 3, 0, 1]  # of one step
LR = 0.01


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _their_warnings() -> Any:
    """What packages warn of while they are imported is theirs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


OPERATORS: list[torch.library.Library] = []  # kept: they are undone when collected


def installed(name: str) -> ModuleType:
    """The package, or a skip. Torchvision for another PyTorch lacks two operators' schemas."""
    if name != "transformers" and not OPERATORS and "torchvision" not in sys.modules:
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        OPERATORS.append(library)
    module: ModuleType = pytest.importorskip(name, exc_type=ImportError)
    return module


def images(each: int, seed: int, side: int) -> tuple[Tensor, Tensor]:
    pixels, labels = draw_digits(each, seed=seed)
    shown = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    return nn.functional.interpolate(shown, size=(side, side)), torch.from_numpy(labels)


def one_step(model: nn.Module, side: int, channels: int = 3) -> dict[str, Tensor]:
    """The state after a step on a batch with these labels."""
    shown, labels = images(max(COUNTS), 5, side)
    index = torch.cat([torch.nonzero(labels == n)[:c, 0] for n, c in enumerate(COUNTS)])
    returned = model.train()(shown[index][:, :channels] * 2 - 1)
    logits = returned.logits if hasattr(returned, "logits") else returned
    optimiser = torch.optim.SGD(model.parameters(), lr=LR)
    nn.functional.cross_entropy(logits, labels[index]).backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return dict(model.state_dict())


def attacked(
    before: Any, after: Any, model: str | None, side: int, channels: int = 3, **more: Any
) -> Finding:
    shown, labels = images(8, 7, side)
    names = tuple(map(str, range(10)))
    held = Auxiliary(shown[:, :channels].contiguous(), labels, names, "digits", "")
    told: dict[str, Any] = {"epochs": 1, "lr": LR, "batch_size": sum(COUNTS), "draws": 200}
    told |= {"normalize": "half", "method": "rlu", "device": "cpu"}
    told |= {} if model is None else {"model": model}
    return rlu_cli.attack(before, after, held, **told, **more)


def listed(finding: Finding) -> list[int]:
    assert finding.counts is not None
    return list(finding.counts.values())


def copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


# Torchvision


@pytest.mark.parametrize(
    ("name", "side", "layer"),
    [
        ("resnet34", 32, "fc"),
        ("mobilenet_v3_small", 64, "classifier.3"),
        ("vit_b_32", 64, "heads.head"),
        ("googlenet", 64, "fc"),
    ],
)
def test_a_model_of_torchvision(name: str, side: int, layer: str) -> None:
    models = installed("torchvision").models
    torch.manual_seed(0)
    without = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    size = {"image_size": side} if name == "vit_b_32" else {}
    model = models.get_model(name, weights=None, num_classes=10, **without, **size)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    before = copied(model)
    after = one_step(model, side)
    finding = attacked(before, after, f"torchvision:{name}", side, model_args=size)
    assert finding.case_finding.case.layer == layer
    assert [one.arguments for one in finding.case_finding.hypotheses] == [size]
    # With dropout the client's masks are unknown; without, every label is found.
    assert sum(map(min, listed(finding), COUNTS)) >= 0.9 * sum(COUNTS)


def test_a_bare_state_is_recognised_with_any_number_of_classes() -> None:
    models = installed("torchvision").models
    torch.manual_seed(0)
    model = models.resnet34(num_classes=10)
    before = copied(model)
    after = {f"net.{name}": tensor for name, tensor in one_step(model, 32).items()}
    finding = attacked(before, after, None, 32)
    named = finding.case_finding.settings["model"]
    assert (named.value, named.source) == ("torchvision:resnet34", "keys and shapes")
    assert listed(finding) == listed(attacked(before, after, "torchvision:resnet34", 32))
    assert sum(map(min, listed(finding), COUNTS)) >= 0.9 * sum(COUNTS)


@pytest.mark.parametrize("name", ["vgg11_bn", "squeezenet1_1", "convnext_tiny", "swin_t"])
def test_the_table_of_fingerprints_is_that_of_the_installed_package(name: str) -> None:
    installed("torchvision")
    for classes in (10, 1000):
        state = build_model(f"torchvision:{name}", classes=classes).state_dict()
        assert packaged_model(state) == f"torchvision:{name}"


def test_squeezenets_convolution_gives_the_logits() -> None:
    installed("torchvision")
    model = build_model("torchvision:squeezenet1_1", classes=10)
    found = logit_layers(model, 3, [64])
    assert found is not None
    assert (found.names, found.rectified, found.classes) == (("classifier.1",), True, 10)


def test_a_classifier_of_a_thousand_is_built_again() -> None:
    installed("torchvision")
    state = build_model("torchvision:resnet18", classes=7).state_dict()
    model = build_model("torchvision:resnet18", state=state)
    assert model.get_submodule("fc").weight.shape == (7, 512)
    factory = build_model("torchvision.models:resnet18", state=state, classes=7)
    assert factory.get_submodule("fc").weight.shape == (7, 512)


# timm


def test_a_model_of_timm_with_grey_images() -> None:
    timm = installed("timm")
    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=10, in_chans=1)
    before = copied(model)
    finding = attacked(before, one_step(model, 32, channels=1), "timm:resnet10t", 32, channels=1)
    assert listed(finding) == COUNTS


def test_a_distilled_transformer_of_timm_has_two_output_layers() -> None:
    timm = installed("timm")
    torch.manual_seed(0)
    name, size = "deit_tiny_distilled_patch16_224", {"img_size": 32}
    model = timm.create_model(name, num_classes=10, **size)
    before = copied(model)
    finding = attacked(before, one_step(model, 32), f"timm:{name}", 32, model_args=size)
    assert finding.case_finding.case.layer == "head + head_dist"
    assert listed(finding) == COUNTS


def test_a_folder_says_nothing_about_memory() -> None:
    """Models whose names tensors without names get are sketched only."""
    installed("torchvision")
    for name in ("torchvision:mobilenet_v3_small", "torchvision:swin_t"):
        model = build_model(name, classes=7)
        for listed in (model.state_dict(), dict(model.named_parameters())):
            shapes = [tuple(tensor.shape) for tensor in listed.values()]
            layouts = list(possible_layouts(shapes, name, {}, None))
            assert [*listed] in [list(layout) for layout in layouts]
            assert all(tensor.is_meta for layout in layouts for tensor in layout.values())


def test_an_unknown_model_is_refused_with_near_names() -> None:
    installed("timm")
    installed("torchvision")
    for name, near in (("timm:resnet5O", "resnet50"), ("torchvision:resnet5O", "resnet50")):
        with pytest.raises(UsageError) as caught:
            build_model(name)
        assert caught.value.code == "E101"
        assert near in caught.value.hint


# Hugging Face


def hf_model(folder: Path) -> nn.Module:
    transformers = installed("transformers")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
        num_labels=10,
        hidden_dropout_prob=0.0,
    )
    model: nn.Module = transformers.AutoModelForImageClassification.from_config(config)
    config.save_pretrained(folder)
    return model


def test_a_folder_of_transformers(tmp_path: Path) -> None:
    model = hf_model(tmp_path)
    before = copied(model)
    finding = attacked(before, one_step(model, 32), f"hf:{tmp_path}", 32)
    assert finding.case_finding.case.layer == "classifier"
    assert listed(finding) == COUNTS


def test_names_that_save_pretrained_changes_are_mapped(tmp_path: Path) -> None:
    model = hf_model(tmp_path)
    for name in ("before", "after"):
        model.save_pretrained(tmp_path / name)  # type: ignore[operator]
        if name == "before":
            one_step(model, 32)
    files = [tmp_path / name / "model.safetensors" for name in ("before", "after")]
    finding = attacked(files[0], files[1], f"hf:{tmp_path / 'before'}", 32)
    assert listed(finding) == COUNTS


def test_a_configuration_that_is_not_of_the_weights_allocates_nothing(tmp_path: Path) -> None:
    model = hf_model(tmp_path)
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace('"hidden_size": 32', '"hidden_size": 65536'))
    with pytest.raises(InputError) as caught:
        build_model(f"hf:{tmp_path}", state=model.state_dict())
    assert caught.value.code == "E215"


def test_code_of_a_folder_is_not_run(tmp_path: Path) -> None:
    installed("transformers")
    (tmp_path / "config.json").write_text(
        '{"model_type": "own", "auto_map": {"AutoConfig": "own.Own", '
        '"AutoModelForImageClassification": "own.Net"}}'
    )
    (tmp_path / "own.py").write_text("open('marker', 'w').close()\n")
    with pytest.raises(InputError) as caught:
        build_model(f"hf:{tmp_path}")
    assert caught.value.code == "E216"
    assert not (tmp_path / "marker").exists()


def test_a_folder_without_a_configuration(tmp_path: Path) -> None:
    installed("transformers")
    with pytest.raises(InputError) as caught:
        build_model(f"hf:{tmp_path / 'gone'}")
    assert caught.value.code == "E201"


# Without the packages


def test_a_state_that_no_package_has_is_not_recognised() -> None:
    assert packaged_model({"fc.weight": torch.ones(10, 4)}) is None


def test_every_fingerprint_names_a_package() -> None:
    assert len(FINGERPRINTS) > 50
    assert {name.partition(":")[0] for name in FINGERPRINTS.values()} == {"torchvision", "timm"}


@pytest.mark.parametrize("source", ["torchvision", "timm", "hf"])
def test_an_absent_package_is_a_sentence(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError) as caught:
        build_model(f"{source}:net")
    assert caught.value.code == "E107"
    assert "pip install" in caught.value.hint
    assert not runs_code(f"{source}:net")
