"""Numbered folders are read by number or as text, as the model has it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_case import case_of, images

from rlu_cli.audit.settled_order import settle_order, text_positions
from rlu_cli.case.build import Case
from rlu_cli.errors import UsageError
from rlu_cli.types import Outputs

NAMES = ("1", "2", "10")
TEXT = torch.tensor([0, 2, 1])  # 1, 10, 2


def _case(folder: Path, **flags: object) -> Case:
    auxiliary = images(NAMES, str(folder))
    labels = torch.arange(3).repeat_interleave(20)
    auxiliary = replace(auxiliary, images=torch.zeros(60, 3, 8, 8), labels=labels)
    return case_of(auxiliary=auxiliary, **flags)


def _ends(called: torch.Tensor) -> tuple[Outputs, Outputs]:
    labels = torch.arange(3).repeat_interleave(20)
    logits = torch.nn.functional.one_hot(called, 3).float()
    outputs = Outputs(torch.zeros(60, 2), logits, labels)
    return outputs, outputs


def test_positions_in_text_order() -> None:
    assert text_positions(("1", "2", "10")) is not None
    assert text_positions(("1", "2", "3")) is None
    assert text_positions(("a", "c", "b")) is None


def test_a_model_in_text_order_renumbers_the_classes(tmp_path: Path) -> None:
    labels = torch.arange(3).repeat_interleave(20)
    case, (before, after) = settle_order(_case(tmp_path), _ends(TEXT[labels]))
    assert case.auxiliary.class_names == ("1", "10", "2")
    assert torch.equal(case.auxiliary.labels, TEXT[labels])
    assert torch.equal(before.labels, TEXT[labels])
    assert torch.equal(after.labels, TEXT[labels])
    assert "by text" in case.notes[-1]


def test_a_model_in_numeric_order_keeps_them(tmp_path: Path) -> None:
    labels = torch.arange(3).repeat_interleave(20)
    case, _ = settle_order(_case(tmp_path), _ends(labels))
    assert case.auxiliary.class_names == NAMES
    assert "by number" in case.notes[-1]


def test_an_untrained_model_asks(tmp_path: Path) -> None:
    ends = _ends(torch.zeros(60, dtype=torch.int64))
    with pytest.raises(UsageError) as caught:
        settle_order(_case(tmp_path), ends)
    assert caught.value.code == "E110"
    assert "--classes" in caught.value.hint
    listed = dict(caught.value.facts)
    assert listed["number"].startswith("1,2,10")
    assert listed["text"].startswith("1,10,2")


def test_a_given_order_is_not_questioned(tmp_path: Path) -> None:
    ends = _ends(torch.zeros(60, dtype=torch.int64))
    case = _case(tmp_path, classes=NAMES)
    assert settle_order(case, ends) == (case, ends)


def test_other_sources_are_not_questioned() -> None:
    ends = _ends(torch.zeros(60, dtype=torch.int64))
    case = _case(Path("images.npz"))
    assert settle_order(case, ends) == (case, ends)
