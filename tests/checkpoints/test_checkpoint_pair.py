"""A pair must be one model before and after a round in which the output layer moved."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rlu_cli.checkpoints import check_pair
from rlu_cli.errors import InputError
from rlu_cli.types import Checkpoint


def _checkpoint(name, state):
    return Checkpoint(path=Path(name), sha256=name, format="torch-zip", state=state)


def _changed(state, *names, **other):
    return {n: t + 1 if n in names else t.clone() for n, t in state.items()} | other


def _refused(before, after, layer="fc"):
    with pytest.raises(InputError) as caught:
        check_pair(_checkpoint("g.pt", before), _checkpoint("c.pt", after), layer)
    return caught.value


@pytest.mark.parametrize("moved", ["fc.weight", "fc.bias"])
def test_a_round_is_accepted(moved, state):
    after = _changed(state, "conv.weight", moved)
    check_pair(_checkpoint("g.pt", state), _checkpoint("c.pt", after), "fc")


def test_a_head_without_bias_is_accepted(state):
    del state["fc.bias"]
    check_pair(_checkpoint("g", state), _checkpoint("c", _changed(state, "fc.weight")), "fc")


def test_counters_that_were_averaged_are_accepted(state):
    averaged = {"bn.num_batches_tracked": torch.tensor(7.5)}
    after = _changed(state, "fc.weight", **averaged)
    check_pair(_checkpoint("g", state), _checkpoint("c", after), "fc")


def test_missing_extra_and_reshaped_tensors_are_listed(state):
    after = _changed(state, "fc.weight", **{"fc.weight": torch.zeros(4, 8), "x\x1b": torch.ones(1)})
    del after["conv.bias"]
    error = _refused(state, after)
    assert error.code == "E212"
    differ = dict(error.facts)["differ"]
    assert "conv.bias is missing" in differ
    assert "fc.weight is (3, 8) and (4, 8)" in differ
    assert "x\\x1b is only in the second" in differ


def test_a_long_list_of_differences_is_cut(state):
    extra = {f"x{i}": torch.zeros(1) for i in range(30)}
    assert "(26 more)" in str(_refused(state, state | extra))


def test_the_same_file_twice(state):
    checkpoint = _checkpoint("g.pt", state)
    with pytest.raises(InputError, match="the files are identical"):
        check_pair(checkpoint, checkpoint, "fc")


def test_the_same_tensors_in_two_files(state):
    error = _refused(state, _changed(state))
    assert error.code == "E213"
    assert "all tensors in them are identical" in error.message


def test_a_frozen_head_is_named_with_what_moved(state):
    error = _refused(state, _changed(state, "conv.weight", "conv.bias"))
    assert error.code == "E213"
    assert "fc" in error.message
    assert dict(error.facts)["moved"] == "conv.weight, conv.bias"
