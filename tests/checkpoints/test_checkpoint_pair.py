"""A pair must be one model before and after a round in which the output layer moved."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from checkpoint_files import State

from rlu_cli.checkpoints import CheckpointPair, check_pair
from rlu_cli.errors import InputError
from rlu_cli.types import Checkpoint


def _checkpoint(name: str, state: State) -> Checkpoint:
    return Checkpoint(path=Path(name), sha256=name, format="torch-zip", state=state)


def _pair(before: State, after: State, layer: str = "fc") -> CheckpointPair:
    return CheckpointPair(_checkpoint("g.pt", before), _checkpoint("c.pt", after), layer)


def _changed(state: State, *names: str, **other: torch.Tensor) -> State:
    return {n: t + 1 if n in names else t.clone() for n, t in state.items()} | other


def _refused(before: State, after: State, layer: str = "fc") -> InputError:
    with pytest.raises(InputError) as caught:
        check_pair(_pair(before, after, layer))
    return caught.value


@pytest.mark.parametrize("moved", ["fc.weight", "fc.bias"])
def test_a_round_is_accepted(moved: str, state: State) -> None:
    check_pair(_pair(state, _changed(state, "conv.weight", moved)))


def test_a_head_without_bias_is_accepted(state: State) -> None:
    del state["fc.bias"]
    check_pair(_pair(state, _changed(state, "fc.weight")))


def test_counters_that_were_averaged_are_accepted(state: State) -> None:
    averaged = {"bn.num_batches_tracked": torch.tensor(7.5)}
    check_pair(_pair(state, _changed(state, "fc.weight", **averaged)))


def test_missing_extra_and_reshaped_tensors_are_listed(state: State) -> None:
    after = _changed(state, "fc.weight", **{"fc.weight": torch.zeros(4, 8), "x\x1b": torch.ones(1)})
    del after["conv.bias"]
    error = _refused(state, after)
    assert error.code == "E212"
    differ = dict(error.facts)["differ"]
    assert "conv.bias is missing" in differ
    assert "fc.weight is (3, 8) and (4, 8)" in differ
    assert "x\\x1b is only in the second" in differ


def test_a_long_list_of_differences_is_cut(state: State) -> None:
    extra = {f"x{i}": torch.zeros(1) for i in range(30)}
    assert "(26 more)" in str(_refused(state, state | extra))


def test_the_same_file_twice(state: State) -> None:
    checkpoint = _checkpoint("g.pt", state)
    with pytest.raises(InputError, match="the files are identical"):
        check_pair(CheckpointPair(checkpoint, checkpoint, "fc"))


def test_the_same_tensors_in_two_files(state: State) -> None:
    error = _refused(state, _changed(state))
    assert error.code == "E213"
    assert "all tensors in them are identical" in error.message


def test_a_frozen_head_is_named_with_what_moved(state: State) -> None:
    error = _refused(state, _changed(state, "conv.weight", "conv.bias"))
    assert error.code == "E213"
    assert "fc" in error.message
    assert dict(error.facts)["moved"] == "conv.weight, conv.bias"


def test_a_pair_goes_through_its_checkpoints_in_order(state: State) -> None:
    pair = _pair(state, _changed(state, "fc.weight"))
    before, after = pair
    assert (before, after) == (pair.before, pair.after)
    assert [one.path.name for one in pair] == ["g.pt", "c.pt"]


def test_the_output_layer_is_read_once(state: State) -> None:
    pair = _pair(state, _changed(state, "fc.weight", "fc.bias"))
    before, after = pair.heads
    assert pair.heads[0] is before
    assert torch.equal(before.weight, state["fc.weight"])
    assert torch.equal(after.weight, state["fc.weight"] + 1)
    assert pair.update is pair.update
    torch.testing.assert_close(pair.update.weight, torch.ones(3, 8))
    assert pair.update.bias is not None
    torch.testing.assert_close(pair.update.bias, torch.ones(3))


def test_a_bias_that_did_not_move_is_no_bias_of_the_update(state: State) -> None:
    assert _pair(state, _changed(state, "fc.weight")).update.bias is None
    del state["fc.bias"]
    assert _pair(state, _changed(state, "fc.weight")).update.bias is None


@pytest.mark.parametrize(("passes", "steps"), [(0, 0), (4, 4)])
def test_a_pair_counts_its_steps(passes: int, steps: int, state: State) -> None:
    counter = "bn.num_batches_tracked"
    moved = _changed(state, "fc.weight", **{counter: state[counter] + passes})
    assert _pair(state, moved).steps == steps


def test_a_pair_without_counters_tells_no_steps(state: State) -> None:
    del state["bn.num_batches_tracked"]
    assert _pair(state, _changed(state, "fc.weight")).steps is None
