"""Running both models: what the hook reads, and what training mode may and may not change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rlu_cli.case.auxiliary import noise_auxiliary
from rlu_cli.checkpoints import CheckpointPair
from rlu_cli.errors import InputError, UsageError
from rlu_cli.evidence import forward
from rlu_cli.evidence.forward import (
    ForwardConfig,
    choose_device,
    evaluate_pair,
    outputs,
    trains_differently,
    with_bias,
)
from rlu_cli.models.input_scaling import PRESETS
from rlu_cli.types import Auxiliary, Checkpoint, Head, Outputs

CLASSES, CHANNELS, SIDE = 5, 2, 3
WIDTH = CHANNELS * SIDE * SIDE
CPU = torch.device("cpu")
CONFIG = ForwardConfig("fc", PRESETS["none"], training=True, batch=4, device=CPU, seed=3)


def _images(count: int, seed: int = 0) -> Auxiliary:
    """Images of all classes in class order, no pixel zero."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, CHANNELS, SIDE, SIDE, generator=generator) + 0.1
    labels = (torch.arange(count) * CLASSES) // count
    return Auxiliary(images, labels, tuple("abcde"), "test", "0" * 64)


def _net(*before: nn.Module) -> nn.Sequential:
    """`before`, then the images themselves as embeddings, then a linear layer `fc`."""
    net = nn.Sequential()
    for index, module in enumerate(before):
        net.add_module(str(index), module)
    net.add_module("flat", nn.Flatten())
    net.add_module("fc", nn.Linear(WIDTH, CLASSES))
    return net


def _state(net: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """Weights of the net, drawn from `seed`; buffers as they are."""
    generator = torch.Generator().manual_seed(seed)
    drawn = {
        name: torch.randn(value.shape, generator=generator)
        if value.is_floating_point()
        else value.clone()
        for name, value in net.state_dict().items()
    }
    return {n: v.abs() + 0.5 if n.endswith("running_var") else v for n, v in drawn.items()}


def _seen(net: nn.Module, aux: Auxiliary, config: ForwardConfig = CONFIG, seed: int = 0) -> Outputs:
    return outputs(net, _state(net, seed), aux, config, Path("g.pt"))


def _order(aux: Auxiliary, config: ForwardConfig) -> Tensor:
    """The order in which images are shown, read off a net whose embeddings are the images."""
    shown = _seen(_net(), aux, replace(config, normalise=PRESETS["none"])).embeddings
    flat = aux.images.flatten(1)
    same = (shown[:, None] == flat[None]).all(2)
    assert (same.sum(1) == 1).all()
    return same.int().argmax(1)


@pytest.mark.parametrize("count", [2, 7, 20, 33])
@pytest.mark.parametrize("training", [True, False])
def test_every_image_is_seen_once_with_its_own_label(count: int, training: bool) -> None:
    aux, config = _images(count), replace(CONFIG, training=training)
    order = _order(aux, config)
    assert sorted(order.tolist()) == list(range(count))
    assert torch.equal(_seen(_net(), aux, config).labels, aux.labels[order])


def test_in_evaluation_mode_the_outputs_are_those_of_a_plain_forward_pass() -> None:
    net = _net(nn.BatchNorm2d(CHANNELS), nn.Dropout(0.5))
    aux, config = _images(11), replace(CONFIG, training=False, normalise=PRESETS["half"])
    found = _seen(net, aux, config)
    state = _state(net)
    net.load_state_dict(state)
    with torch.no_grad():
        expected = net.eval()(aux.images[_order(aux, config)] * 2 - 1)
    assert torch.allclose(found.logits, expected, atol=1e-5)
    again = found.embeddings @ state["fc.weight"].T + state["fc.bias"]
    assert torch.allclose(again, found.logits, atol=1e-5)


def test_evaluation_does_not_depend_on_how_the_images_are_cut_into_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net, aux, config = _net(nn.BatchNorm2d(CHANNELS)), _images(20), replace(CONFIG, training=False)
    whole = _seen(net, aux, config)
    monkeypatch.setattr(forward, "_EVAL_BATCH", 3)
    assert torch.allclose(_seen(net, aux, config).logits, whole.logits, atol=1e-6)


def _by_hand(aux: Auxiliary, config: ForwardConfig, state: dict[str, Tensor]) -> Tensor:
    """Batch-normalised embeddings: whole batches, the last filled up, the surplus dropped."""
    order = _order(aux, config).tolist()
    count, rows = len(order), []
    passes = -(-count // config.batch)
    endless = (order * (config.batch + 1))[: passes * config.batch]
    for start in range(0, len(endless), config.batch):
        batch = aux.images[endless[start : start + config.batch]].double()
        mean = batch.mean((0, 2, 3), keepdim=True)
        variance = batch.var((0, 2, 3), unbiased=False, keepdim=True)
        scale, offset = (
            state[f"0.{name}"].double().view(1, -1, 1, 1) for name in ("weight", "bias")
        )
        rows.append(((batch - mean) / (variance + 1e-5).sqrt() * scale + offset).flatten(1))
    return torch.cat(rows)[:count]


@pytest.mark.parametrize(
    ("count", "batch"), [(10, 4), (8, 4), (3, 8), (1, 5), (5, 5)], ids=lambda n: str(n)
)
def test_training_mode_uses_the_statistics_of_full_batches(count: int, batch: int) -> None:
    net, aux, config = _net(nn.BatchNorm2d(CHANNELS)), _images(count), replace(CONFIG, batch=batch)
    found = _seen(net, aux, config)
    assert len(found.logits) == len(found.embeddings) == len(found.labels) == count
    expected = _by_hand(aux, config, _state(net))
    assert torch.allclose(found.embeddings.double(), expected, atol=1e-4)


def test_the_order_mixes_the_classes_and_is_the_same_for_both_models() -> None:
    aux, config = _images(100), replace(CONFIG, batch=20)
    order = _order(aux, config)
    for batch in torch.split(aux.labels[order], 20):
        assert len(torch.unique(batch)) >= 4
    assert not torch.equal(order, _order(aux, replace(config, seed=4)))
    net = _net(nn.BatchNorm2d(CHANNELS))
    first, second = (Checkpoint(Path(f"{n}.pt"), "", "torch-zip", _state(net, n)) for n in range(2))
    pair = CheckpointPair(first, second, CONFIG.layer)
    before, after = evaluate_pair(net, pair, aux, config)
    assert torch.equal(before.labels, after.labels)
    alone = outputs(net, pair.after.state, aux, config, pair.after.path)
    assert torch.equal(alone.logits, after.logits)  # nothing of the first is left in the model


def test_the_states_are_left_as_they_were_counters_included() -> None:
    net, aux = _net(nn.BatchNorm2d(CHANNELS), nn.Dropout(0.3)), _images(10)
    state = _state(net)
    state["0.num_batches_tracked"] = torch.tensor(41)
    kept = {name: value.clone() for name, value in state.items()}
    for training in (True, False):
        outputs(net, state, aux, replace(CONFIG, training=training), Path("g.pt"))
        for name, value in state.items():
            assert value.dtype == kept[name].dtype
            assert torch.equal(value, kept[name]), name


def test_buffers_do_not_matter_in_training_mode() -> None:
    net, aux = _net(nn.BatchNorm2d(CHANNELS)), _images(10)
    state = _state(net)
    other = {n: v + 1 if "running" in n else v for n, v in state.items()}
    shown = [outputs(net, s, aux, CONFIG, Path("g.pt")).logits for s in (state, other)]
    assert torch.equal(*shown)


def _dropped(
    kind: Callable[[float], nn.Module], aux: Auxiliary, config: ForwardConfig = CONFIG
) -> Tensor:
    """What is left of the images after dropout, as a factor: (A, C, H, W)."""
    shown = _seen(_net(kind(0.25)), aux, config).embeddings
    images = aux.images[_order(aux, config)]
    return shown.view_as(images) / images


def test_dropout_keeps_the_share_it_should_and_scales_it_up() -> None:
    factor = _dropped(nn.Dropout, _images(200))
    assert torch.allclose(factor[factor > 0], torch.tensor(4 / 3), atol=1e-5)
    assert float((factor > 0).double().mean()) == pytest.approx(0.75, abs=0.05)
    assert len({tuple((f > 0).flatten().tolist()) for f in factor}) > 150
    assert (_dropped(nn.Dropout, _images(20), replace(CONFIG, training=False)) == 1).all()


def test_channel_dropout_drops_whole_channels() -> None:
    factor = _dropped(nn.Dropout2d, _images(200)).flatten(2)
    assert torch.allclose(factor, factor[..., :1].expand_as(factor), atol=1e-5)
    kept = factor[..., 0] > 0
    assert float(kept.double().mean()) == pytest.approx(0.75, abs=0.08)
    assert (kept[:, 0] != kept[:, 1]).any()


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_dropout_of_nothing_and_of_everything(rate: float) -> None:
    aux = _images(10)
    shown = _seen(_net(nn.Dropout(rate)), aux).embeddings
    assert torch.equal(shown, aux.images[_order(aux, CONFIG)].flatten(1) * (1 - rate))


@pytest.mark.parametrize("kind", [nn.Dropout, nn.Dropout2d, nn.AlphaDropout, nn.Dropout1d])
def test_both_models_get_the_same_masks_whatever_torch_did_before(
    kind: Callable[[float], nn.Module],
) -> None:
    aux = _images(30)
    flat = nn.Flatten(2) if kind is nn.Dropout1d else nn.Identity()
    net = _net(flat, kind(0.5))
    first = _seen(net, aux, seed=1).embeddings
    torch.manual_seed(77)
    state = torch.random.get_rng_state()
    second = _seen(net, aux, seed=2).embeddings
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first, second)  # no weights before the dropout: masks are all there is
    other = _seen(net, aux, replace(CONFIG, seed=8)).embeddings
    assert not torch.equal(other, first)


def test_masks_are_drawn_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    aux, drawn = _images(8), []
    rand = torch.rand

    def watch(*shape: Any, **options: Any) -> Tensor:
        assert options["generator"].device.type == "cpu"
        drawn.append(rand(*shape, **options))
        return drawn[-1]

    monkeypatch.setattr(torch, "rand", watch)
    _seen(_net(nn.Dropout(0.5)), aux)
    assert [len(mask) for mask in drawn] == [CONFIG.batch] * 2
    assert all(mask.device.type == "cpu" for mask in drawn)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cpu_and_cuda_see_the_same() -> None:
    net = _net(nn.BatchNorm2d(CHANNELS), nn.Dropout2d(0.5), nn.Dropout(0.5))
    here = _seen(net, _images(30))
    there = _seen(net, _images(30), replace(CONFIG, device=torch.device("cuda")))
    assert torch.equal(there.labels.cpu(), here.labels)
    assert torch.allclose(there.logits.cpu(), here.logits, atol=1e-4)


@dataclass
class _Answer:
    logits: Tensor


class _Wrapped(nn.Module):
    """A model whose answer is not a tensor; `answer` packs the logits."""

    def __init__(self, answer: Callable[[Tensor], Any], layer: str = "fc") -> None:
        super().__init__()
        self.fc = nn.Linear(WIDTH, CLASSES)
        self.spare = nn.Linear(WIDTH, CLASSES)
        self.answer, self.layer = answer, layer

    def forward(self, images: Tensor) -> Any:
        return self.answer(getattr(self, self.layer)(images.flatten(1)))


@pytest.mark.parametrize(
    "answer",
    [lambda x: {"logits": x}, _Answer, lambda x: (x, None), lambda x: None, torch.argmax],
    ids=["dict", "object", "tuple", "nothing", "class"],
)
def test_what_the_model_returns_does_not_matter(answer: Callable[[Tensor], Any]) -> None:
    net, aux = _Wrapped(answer), _images(9)
    found, state = _seen(net, aux), _state(net)
    expected = found.embeddings @ state["fc.weight"].T + state["fc.bias"]
    assert torch.equal(found.embeddings, aux.images[_order(aux, CONFIG)].flatten(1))
    assert torch.allclose(found.logits, expected, atol=1e-5)


def _refusal(net: nn.Module, aux: Auxiliary, config: ForwardConfig = CONFIG) -> InputError:
    with pytest.raises(InputError) as caught:
        _seen(net, aux, config)
    return caught.value


def test_a_layer_that_the_model_does_not_use_is_refused() -> None:
    refused = _refusal(_Wrapped(lambda x: x, layer="spare"), _images(9))
    assert refused.code == "E215"
    assert "did not get one row per image" in refused.why


def test_a_layer_that_the_model_does_not_have_is_refused() -> None:
    refused = _refusal(_net(), _images(9), replace(CONFIG, layer="head\x1b[2J.out"))
    assert refused.code == "E215"
    assert "--layer" in refused.hint
    assert "\x1b" not in str(refused)


def test_images_of_a_size_the_model_does_not_take_are_refused() -> None:
    aux = _images(9)
    refused = _refusal(_net(), replace(aux, images=torch.rand(9, CHANNELS, 7, 8)))
    assert refused.code == "E215"
    assert f"{CHANNELS}×7×8" in refused.message
    assert "--image-size" in refused.hint


def test_a_layer_that_sees_several_rows_for_an_image_is_refused() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(SIDE, CLASSES)

        def forward(self, images: Tensor) -> Tensor:
            return torch.as_tensor(self.fc(images.flatten(0, 2)))

    assert _refusal(Tokens(), _images(9)).code == "E215"


def test_logits_that_are_not_finite_are_refused_by_name() -> None:
    net = _net()
    state = {name: torch.full_like(value, 1e38) for name, value in _state(net).items()}
    with pytest.raises(InputError, match=r"weird\.pt gives logits that are not finite") as caught:
        outputs(net, state, _images(9), CONFIG, Path("weird.pt"))
    assert caught.value.code == "E207"


def test_the_hook_is_gone_afterwards_even_from_a_model_that_failed() -> None:
    net = _net(nn.Dropout(0.5))
    _seen(net, _images(9))
    aux = _images(9)
    _refusal(net, replace(aux, images=torch.rand(9, CHANNELS, 7, 8)))
    assert not any(module._forward_hooks for module in net.modules())


def test_noise_stands_for_every_class_alike() -> None:
    noise = noise_auxiliary(tuple("abcde"), channels=CHANNELS, size=SIDE, images=12, seed=0)
    found = _seen(_net(), noise)
    assert found.labels.bincount().tolist() == [12] * CLASSES
    blocks = found.logits.view(CLASSES, 12, CLASSES)
    assert torch.equal(blocks, blocks[:1].expand_as(blocks))


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.BatchNorm2d(CHANNELS), True),
        (nn.SyncBatchNorm(CHANNELS), True),
        (nn.Dropout(0.1), True),
        (nn.AlphaDropout(0.1), True),
        (nn.GroupNorm(1, CHANNELS), False),
        (nn.ReLU(), False),
    ],
)
def test_which_models_train_differently(module: nn.Module, expected: bool) -> None:
    assert trains_differently(_net(module)) is expected


def _pair(*heads: Head) -> CheckpointPair:
    states = [
        {"fc.weight": h.weight} | ({} if h.bias is None else {"fc.bias": h.bias}) for h in heads
    ]
    before, after = (
        Checkpoint(Path(f"{n}.pt"), "", "torch-zip", state) for n, state in enumerate(states)
    )
    return CheckpointPair(before, after, "fc")


def test_the_update_is_the_clients_head_minus_the_global_one() -> None:
    first, second = (Head(torch.randn(CLASSES, WIDTH), torch.randn(CLASSES)) for _ in range(2))
    update = _pair(first, second).update
    assert torch.allclose(update.weight.float(), second.weight - first.weight, atol=1e-6)
    assert update.bias is not None
    assert second.bias is not None
    assert first.bias is not None
    assert torch.allclose(update.bias.float(), second.bias - first.bias, atol=1e-6)


def test_without_a_bias_its_update_is_read_off_the_weights_and_the_mean_embedding() -> None:
    """Exact where every sample has the same embedding: ΔW_j = Δb_j ē."""
    generator = torch.Generator().manual_seed(0)
    mean = torch.rand(WIDTH, generator=generator).double()
    bias = torch.randn(CLASSES, generator=generator).double()
    seen = Outputs(mean.expand(4, -1).float(), torch.zeros(4, CLASSES), torch.zeros(4).long())
    first = Head(torch.randn(CLASSES, WIDTH, generator=generator).double(), None)
    second = Head(first.weight + bias[:, None] * mean, None)
    update = _pair(first, second).update
    assert update.bias is None
    derived = with_bias(update, seen, seen)
    assert derived.bias is not None
    assert torch.allclose(derived.bias.double(), bias, atol=1e-5)
    own = Head(first.weight, bias)
    assert with_bias(own, seen, seen) is own


@pytest.mark.parametrize("devices", [0, 2])
def test_the_device_is_chosen_from_those_there_are(
    monkeypatch: pytest.MonkeyPatch, devices: int
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: devices > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type == ("cuda" if devices else "cpu")
    for wanted, index in (("cuda", 0), ("cuda:0", 0), ("cuda:1", 1), ("cuda:2", 2)):
        if index < devices:
            assert choose_device(wanted) == torch.device(wanted)
        else:
            with pytest.raises(UsageError, match=f"no device {wanted}") as caught:
                choose_device(wanted)
            assert caught.value.code == "E103"
            assert "--device cpu" in caught.value.hint


@pytest.mark.parametrize("wanted", ["gpu", "", "cuda:x", "cuda:-1", "cpu:0", "mps", "\x1b[2J"])
def test_an_unknown_device_is_a_usage_error(wanted: str) -> None:
    with pytest.raises(UsageError) as caught:
        choose_device(wanted)
    assert caught.value.code == "E101"
    assert "\x1b" not in str(caught.value)
