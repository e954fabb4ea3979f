"""The classes of the auxiliary images stand in another order than the model's."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from rlu_cli.audit.class_label import label
from rlu_cli.audit.explanations.clues import Clues
from rlu_cli.audit.explanations.explanation import Explanation
from rlu_cli.audit.settled_order import text_positions

# Share of the images of moved classes that the other order gets right, at least; of the model's own
# mean confidence, where that is lower: a model that is sure of 45 % is right on no more.
_RIGHT, _OF_CONFIDENCE = 0.4, 0.6
_TIMES = 2.5  # that share over the one in the given order, at least
_LISTED = 6


def class_order(clues: Clues) -> Explanation | None:
    """The order of classes under which the global model is right most often, by assignment.

    Tried first: the text order of numbered classes (1, 10, 11, 2, …), which many loaders use.

    gain  (r' - r)² / (r' + r) for r' images of moved classes right in the other order, r in the
          given one: the χ² of a fair coin
    """
    if not clues.labelled:
        return None
    names = clues.auxiliary.class_names
    table = predictions(clues)
    text = text_positions(names)
    candidates = [] if text is None else [(text, True)]
    rows, columns = linear_sum_assignment(-table.numpy())
    candidates.append((torch.as_tensor(columns)[torch.as_tensor(rows).argsort()], False))
    least = _RIGHT if clues.trial is None else min(_RIGHT, _OF_CONFIDENCE * clues.trial.sure)
    found = [
        one
        for order, textual in candidates
        if (one := _explained(table, order, names, least, textual=textual)) is not None
    ]
    return found[0] if found else None


def predictions(clues: Clues) -> Tensor:
    """(N, N) int64: images of class n that the global model calls class j."""
    outputs, classes = clues.evidence.before, clues.evidence.classes
    cells = outputs.labels.cpu() * classes + outputs.logits.argmax(1).cpu()
    return torch.bincount(cells, minlength=classes**2).view(classes, classes)


def _explained(
    table: Tensor, order: Tensor, names: tuple[str, ...], least: float, *, textual: bool
) -> Explanation | None:
    index = torch.arange(len(order))
    moved = index[order != index]
    if not len(moved):
        return None
    images = int(table[moved].sum())
    given, other = int(table[moved, moved].sum()), int(table[moved, order[moved]].sum())
    if other < max(least * images, _TIMES * given):
        return None
    gain = (other - given) ** 2 / max(other + given, 1)
    shares = other / images, given / images
    what = f"{shares[0]:.0%} of the images of {len(moved)} classes instead of {shares[1]:.0%}"
    if textual:
        return Explanation(
            "class order",
            gain,
            f"the global model is right on {what} if its classes stand in the text order of their "
            "names (1, 10, 2, …) and not in numeric order",
            f"give --classes {','.join(sorted(names))}",
            private=True,
        )
    listed = [f"{label(int(n), names[n])} is its class {int(order[n])}" for n in moved[:_LISTED]]
    more = f" and {len(moved) - _LISTED} more" * (len(moved) > _LISTED)
    by_position = [names[int(n)] for n in order.argsort()]
    return Explanation(
        "class order",
        gain,
        f"the global model is right on {what} in another order of the classes: "
        f"{', '.join(listed)}{more}",
        f"check the order, and give it with --classes {','.join(by_position)}",
        private=True,
    )
