"""Initialisation of the authors' convolutions: Kaiming-normal over the fan-out, zero bias."""

from __future__ import annotations

from torch import nn


def kaiming_convolutions(model: nn.Module) -> nn.Module:
    """Initialise every convolution of `model` in place; other layers keep PyTorch's defaults."""
    for module in model.modules():
        # A meta model has no values, and initialising it costs PyTorch an import of a second.
        if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model
