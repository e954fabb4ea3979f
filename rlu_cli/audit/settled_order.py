"""The class order of numbered folders: by number or by text, as the model has it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from rlu_cli.case.auxiliary import is_folder
from rlu_cli.case.build import Case
from rlu_cli.case.truth import load_truth
from rlu_cli.errors import UsageError
from rlu_cli.types import Outputs

_CLEAR = 12.0  # χ² by which one order beats the other
_NAMED = 12  # classes of each order that an error lists

Ends = tuple[Outputs, Outputs]


def settle_order(case: Case, ends: Ends) -> tuple[Case, Ends]:
    """The case and its outputs in the class order in which the global model is right more often.

    Folders named 1, 2, …, 10 are read by number; many loaders sort them as text: 1, 10, 2, …. Where
    the two differ and no setting gives the order, the model decides, if it is clear.

    Raises UsageError E110 if it is not.
    """
    position = text_positions(case.auxiliary.class_names)
    if position is None or "classes" in case.settings or not is_folder(case.auxiliary):
        return case, ends
    by_number, by_text = (
        int((ends[0].logits.argmax(1).cpu() == labels).sum())
        for labels in (ends[0].labels.cpu(), position[ends[0].labels.cpu()])
    )
    if (by_number - by_text) ** 2 < _CLEAR * max(by_number + by_text, 1):
        raise _unclear(case, by_number, by_text, len(ends[0].labels))
    count = len(ends[0].labels)
    orders = "text", "number"
    shares = by_text / count, by_number / count
    if by_number > by_text:
        orders, shares = orders[::-1], shares[::-1]
    note = (
        f"class order: folders by {orders[0]}, in which the global model is right on "
        f"{shares[0]:.0%} of the images; by {orders[1]} on {shares[1]:.0%}"
    )
    settled = replace(case, notes=(*case.notes, note))
    return (settled, ends) if by_number > by_text else _in_text_order(settled, ends, position)


def text_positions(names: tuple[str, ...]) -> Tensor | None:
    """(N,): index of each class in the text order of the names.

    None where the names are no numbers, or stand in text order already.
    """
    if not all(name.isdecimal() for name in names):
        return None
    ordered = sorted(names)
    position = torch.tensor([ordered.index(name) for name in names])
    return None if bool((position == torch.arange(len(names))).all()) else position


def _in_text_order(case: Case, ends: Ends, position: Tensor) -> tuple[Case, Ends]:
    auxiliary = case.auxiliary
    names = tuple(sorted(auxiliary.class_names))
    auxiliary = replace(auxiliary, labels=position[auxiliary.labels], class_names=names)
    truth = case.truth
    if case.truth_path is not None:
        truth = load_truth(case.truth_path, names, case.plan.total)
    before, after = (replace(end, labels=position.to(end.labels)[end.labels]) for end in ends)
    return replace(case, auxiliary=auxiliary, truth=truth), (before, after)


def _unclear(case: Case, by_number: int, by_text: int, count: int) -> UsageError:
    names = case.auxiliary.class_names

    def listed(order: tuple[str, ...]) -> str:
        return ",".join(order[:_NAMED]) + ",…" * (len(order) > _NAMED)

    return UsageError(
        "E110",
        "the class order of the image folders is not known: by number or by text",
        facts=[
            ("number", f"{listed(names)} (right on {by_number} of {count} images)"),
            ("text", f"{listed(tuple(sorted(names)))} (right on {by_text})"),
        ],
        why="loaders such as ImageFolder sort names as text, and the global model classifies too "
        "few of the images right to tell",
        hint="give the order of the output layer with --classes A,B,…",
    )
