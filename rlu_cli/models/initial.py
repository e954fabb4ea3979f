"""How the authors' convolutions start: Kaiming-normal over the fan-out, zero bias."""

from __future__ import annotations

from torch import nn


def kaiming_convolutions(model: nn.Module) -> nn.Module:
    """`model` with every convolution drawn anew; its other layers stay as PyTorch starts them."""
    for module in model.modules():
        # A model of shapes alone has nothing to draw, and trying costs PyTorch a second's import.
        if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model
