"""Named architectures whose output layer may have no bias."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from rlu_cli.models.architecture import Architecture, Shapes


def with_head_bias(row: Architecture, head: str) -> Architecture:
    """The architecture with an option `head_bias`, true if a state dict has that bias.

    head  name of the output layer
    """
    name = f"{head}.bias"

    def build(*, head_bias: bool = True, **arguments: Any) -> nn.Module:
        model = row.build(**arguments)
        if not head_bias:
            model.get_submodule(head).register_parameter("bias", None)
        return model

    def infer(shapes: Shapes) -> dict[str, Any]:
        classes = shapes[f"{head}.weight"][:1]
        return {**row.infer({**shapes, name: classes}), "head_bias": name in shapes}

    return replace(
        row, build=build, infer=infer, options={**row.options, "head_bias": (True, False)}
    )
