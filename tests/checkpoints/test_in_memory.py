"""A state dict in memory is held to the rules of one in a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_files import State
from torch import Tensor, nn

from rlu_cli.checkpoints import DEFAULT_MAX_BYTES, IN_MEMORY, open_checkpoint, open_from
from rlu_cli.errors import InputError
from rlu_cli.types import Checkpoint


def _opened(state: Mapping[str, Any], *, max_bytes: int = DEFAULT_MAX_BYTES) -> Checkpoint:
    return open_from(state, "global state dict", max_bytes=max_bytes)


def _refused(state: Mapping[str, Any], *, max_bytes: int = DEFAULT_MAX_BYTES) -> InputError:
    with pytest.raises(InputError) as caught:
        _opened(state, max_bytes=max_bytes)
    assert "global state dict" in caught.value.message
    return caught.value


def test_a_state_dict_is_a_checkpoint_under_the_name_it_is_called(state: State) -> None:
    found = _opened(state)
    assert found.format == IN_MEMORY
    assert found.path == Path("global state dict")
    assert list(found.state) == list(state)
    assert all(torch.equal(found.state[name], tensor) for name, tensor in state.items())
    assert (found.wrappers, found.prefixes, found.narrow) == ((), (), None)
    assert dict(found.facts) == {}
    assert dict(found.momentum) == {}


def test_a_file_with_the_same_dict_gives_the_same_tensors(state: State, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "g.pt")
    on_disk = open_checkpoint(tmp_path / "g.pt")
    found = _opened(state)
    assert list(found.state) == list(on_disk.state)
    assert all(torch.equal(found.state[name], on_disk.state[name]) for name in found.state)


def test_a_modules_own_state_dict_is_taken() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    found = _opened(model.state_dict())
    assert set(found.state) == set(model.state_dict())
    assert not any(tensor.requires_grad for tensor in found.state.values())


def test_parameters_come_without_their_gradients() -> None:
    model = nn.Linear(4, 3)
    found = _opened(dict(model.named_parameters()))
    assert not any(tensor.requires_grad for tensor in found.state.values())
    assert {type(tensor) for tensor in found.state.values()} == {Tensor}


def test_the_callers_dict_is_left_as_it_was(state: State) -> None:
    given = {f"module.{name}": tensor.half() for name, tensor in state.items()}
    before = dict(given)
    _opened(given)
    assert list(given) == list(before)
    assert all(given[name] is before[name] for name in given)


# Prefixes and wrappers.


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_module."])
def test_a_prefix_that_all_names_share_is_stripped(prefix: str, state: State) -> None:
    found = _opened({prefix + name: tensor for name, tensor in state.items()})
    assert list(found.state) == list(state)
    assert found.prefixes == (prefix,)


def test_prefixes_in_one_another_are_stripped_outermost_first(state: State) -> None:
    found = _opened({f"module._orig_mod.{name}": tensor for name, tensor in state.items()})
    assert list(found.state) == list(state)
    assert found.prefixes == ("module.", "_orig_mod.")


def test_a_prefix_that_one_name_lacks_stays(state: State) -> None:
    mixed = {f"module.{name}": tensor for name, tensor in state.items()} | {"x": torch.ones(1)}
    assert list(_opened(mixed).state) == list(mixed)


@pytest.mark.parametrize("key", ["state_dict", "model", "net"])
def test_a_trainers_dict_is_unwrapped(key: str, state: State) -> None:
    found = _opened({key: state, "epoch": 3, "note": "x"})
    assert list(found.state) == list(state)
    assert found.wrappers == (key,)


# Types.


@pytest.mark.parametrize(
    ("dtype", "name"), [(torch.float16, "float16"), (torch.bfloat16, "bfloat16")]
)
def test_half_precision_is_widened_and_said_to_have_been(
    dtype: torch.dtype, name: str, state: State
) -> None:
    narrow = {k: t.to(dtype) if t.is_floating_point() else t for k, t in state.items()}
    found = _opened(narrow)
    assert found.narrow == name
    for key, tensor in narrow.items():
        expected = tensor.float() if tensor.is_floating_point() else tensor
        assert found.state[key].dtype == expected.dtype
        assert torch.equal(found.state[key], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.uint8])
def test_other_types_are_kept(dtype: torch.dtype) -> None:
    found = _opened({"x": torch.ones(2, dtype=dtype)})
    assert found.state["x"].dtype == dtype
    assert found.narrow is None


def test_numbers_without_a_shape_and_empty_tensors_are_kept() -> None:
    found = _opened({"counter": torch.tensor(7), "none": torch.empty(0, 3)})
    assert int(found.state["counter"]) == 7
    assert found.state["none"].shape == (0, 3)


# The digest.


def _digest(state: Mapping[str, Tensor]) -> str:
    return _opened(state).sha256


def test_the_digest_is_a_sha256_and_the_same_every_time(state: State) -> None:
    copies = {name: tensor.clone() for name, tensor in state.items()}
    assert len(_digest(state)) == 64
    assert int(_digest(state), 16) >= 0
    assert _digest(state) == _digest(copies)


def test_the_order_of_the_names_does_not_matter_to_the_digest(state: State) -> None:
    assert _digest(state) == _digest(dict(reversed(state.items())))


def test_a_prefix_or_a_wrapper_does_not_matter_to_the_digest(state: State) -> None:
    assert _digest({f"module.{name}": tensor for name, tensor in state.items()}) == _digest(state)
    assert _opened({"model": state}).sha256 == _digest(state)


def test_the_layout_in_memory_does_not_matter_to_the_digest() -> None:
    square = torch.arange(9.0).view(3, 3)
    assert _digest({"x": square.T}) == _digest({"x": square.T.contiguous()})
    assert _digest({"x": square[1:]}) == _digest({"x": square[1:].clone()})


def test_any_value_that_changes_changes_the_digest(state: State) -> None:
    seen = {_digest(state)}
    for name, tensor in state.items():
        for position in range(tensor.numel()):
            changed = tensor.clone()
            changed.view(-1)[position] += 1
            seen.add(_digest({**state, name: changed}))
    assert len(seen) == 1 + sum(tensor.numel() for tensor in state.values())


def test_the_smallest_change_of_a_value_changes_the_digest() -> None:
    one = torch.ones(3)
    assert _digest({"x": one}) != _digest({"x": torch.nextafter(one, 2 * one)})


def test_names_types_and_shapes_are_part_of_the_digest() -> None:
    zeros = torch.zeros(6)
    alike = [
        {"x": zeros},
        {"y": zeros},
        {"x": zeros.view(2, 3)},
        {"x": zeros.view(3, 2)},
        {"x": zeros.int()},
        {"x": zeros[:3], "y": zeros[:3]},
        {"x": zeros[:2], "y": zeros[:4]},
        {"x": zeros, "y": zeros[:0]},
    ]
    assert len({_digest(one) for one in alike}) == len(alike)


def test_the_digest_is_that_of_the_values_that_are_computed_with(state: State) -> None:
    narrow = {k: t.bfloat16() if t.is_floating_point() else t for k, t in state.items()}
    wide = {k: t.float() if t.is_floating_point() else t for k, t in narrow.items()}
    assert _digest(narrow) == _digest(wide)


# Refusals.


def test_the_largest_sum_of_tensors_is_the_limit() -> None:
    state = {"x": torch.zeros(10), "y": torch.zeros(15)}
    assert _opened(state, max_bytes=100).sha256
    error = _refused(state, max_bytes=99)
    assert error.code == "E205"
    assert "99" in error.message
    assert "100" in error.why


def test_half_precision_counts_as_what_it_becomes() -> None:
    assert _refused({"x": torch.zeros(10).half()}, max_bytes=39).code == "E205"
    assert _opened({"x": torch.zeros(10).half()}, max_bytes=40).narrow == "float16"


NOT_PLAIN: dict[str, Tensor] = {
    "meta": torch.empty(2, device="meta"),
    "complex": torch.ones(2, dtype=torch.complex64),
    "sparse": torch.eye(3).to_sparse(),
    "repeated": torch.ones(1).expand(1000),
    "overlapping": torch.arange(5.0).as_strided((3, 3), (1, 1)),
    "eight bits": torch.ones(2).to(torch.float8_e5m2),
}


@pytest.mark.parametrize("kind", NOT_PLAIN)
def test_tensors_that_are_not_plain_are_refused(kind: str, state: State) -> None:
    error = _refused({**state, "odd.weight": NOT_PLAIN[kind]})
    assert error.code == "E206"
    assert "odd.weight" in error.message
    assert error.hint


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_numbers_that_are_not_finite_are_refused(
    dtype: torch.dtype, value: float, state: State
) -> None:
    wrong = torch.zeros(4, dtype=dtype)
    wrong[2] = value
    error = _refused({**state, "fc.bias": wrong})
    assert error.code == "E207"
    assert "fc.bias" in error.message


@pytest.mark.parametrize(
    "content", [{}, {"lr": 0.1}, {"model": {}}, {1: torch.ones(2)}, {"model": {"a": "b"}}]
)
def test_a_dict_without_named_tensors_is_no_state_dict(content: Mapping[str, Any]) -> None:
    assert _refused(content).code == "E208"


def test_dicts_that_hold_one_another_are_no_state_dict() -> None:
    knot: dict[str, Any] = {}
    knot["model"] = {"net": knot}
    assert _refused(knot).code == "E208"


def test_names_are_shown_without_their_control_characters(state: State) -> None:
    error = _refused({**state, "\x1b[31m": torch.tensor(float("nan"))})
    assert "\x1b" not in str(error)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: {**state, "x": torch.tensor(float("nan"))},
        lambda state: {**state, "x": torch.ones(2, dtype=torch.complex64)},
        lambda state: {"lr": 0.1},
    ],
    ids=["E207", "E206", "E208"],
)
def test_a_file_of_the_same_content_is_refused_alike(
    spoil: Any, state: State, tmp_path: Path
) -> None:
    content = spoil(state)
    torch.save(content, tmp_path / "g.pt")
    with pytest.raises(InputError) as caught:
        open_checkpoint(tmp_path / "g.pt")
    assert caught.value.code == _refused(content).code


def test_a_path_is_read_as_the_file_it_names(tmp_path: Path, state: State) -> None:
    torch.save(state, tmp_path / "g.pt")
    found = open_from(tmp_path / "g.pt", "unused")
    assert found.path == tmp_path / "g.pt"
    assert found.format == "torch-zip"
