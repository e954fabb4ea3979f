"""Only the output layer was trained."""

from __future__ import annotations

from rlu_cli.audit.explanations.clues import Clues
from rlu_cli.audit.explanations.explanation import PROOF, Explanation
from rlu_cli.checkpoints import layer_parts


def frozen_body(clues: Clues) -> Explanation | None:
    """All parameters but those of the output layer are identical, which settings do not say.

    It is no mistake where the model has no other layer, or is evaluated in evaluation mode.
    """
    prefixes = tuple(f"{part}." for part in layer_parts(clues.case.layer))
    body = [name for name in clues.update if not name.startswith(prefixes)]
    moved = any(bool(clues.update[name].any()) for name in body)
    buffers = clues.pair.steps not in (None, 0)
    if not body or moved or buffers or not clues.config.training:
        return None
    return Explanation(
        "frozen body",
        PROOF,
        "only the output layer changed: the client trained it on a frozen body, whose BatchNorm "
        "and Dropout layers then usually run in evaluation mode",
        "give --mode eval",
    )
