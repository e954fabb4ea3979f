"""Write rlu_cli/models/fingerprints.py from the installed torchvision and timm.

    python docs/make_fingerprints.py

Models are built on the meta device, which takes no memory and a few minutes.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from rlu_cli.models import build_model
from rlu_cli.models.fingerprint import fingerprint

HERE = Path(__file__).parents[1] / "rlu_cli" / "models" / "fingerprints.py"
# Families of timm that are trained in federations; the others can be named with --model.
FAMILIES = re.compile(
    r"(resnet|resnext|seresnet|wide_resnet|vit_(tiny|small|base|large)_patch|deit|convnext|"
    r"efficientnet_b|mobilenetv|swin_|swinv2_|regnet[xy]_|densenet|vgg|mixer_|convmixer|efficientnetv2)"
)


def references() -> Iterator[tuple[str, dict[str, object]]]:
    """Names, torchvision's first, then the shorter ones, with the arguments of their variants."""
    import timm
    from torchvision import models

    for name in sorted(models.list_models(module=models), key=lambda one: (len(one), one)):
        yield f"torchvision:{name}", {}
        if name in ("googlenet", "inception_v3"):
            yield f"torchvision:{name}", {"aux_logits": False}
    for name in sorted(timm.list_models(), key=lambda one: (len(one), one)):
        if FAMILIES.match(name):
            yield f"timm:{name}", {}


def shapes(reference: str, arguments: dict[str, object]) -> dict[str, tuple[int, ...]] | None:
    """Shapes of a model; None where it cannot be built without memory."""
    try:
        with torch.device("meta"):
            model: nn.Module = build_model(reference, arguments=arguments)
    except Exception as problem:
        print(f"left out: {reference}: {problem}")
        return None
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def main() -> None:
    found: dict[str, str] = {}
    for reference, arguments in references():
        of_model = shapes(reference, arguments)
        if of_model is not None:
            found.setdefault(fingerprint(of_model), reference)
    lines = [f'    "{key}": "{name}",' for key, name in sorted(found.items(), key=lambda x: x[1])]
    text = '"""Fingerprints of packages\' models: written by docs/make_fingerprints.py."""\n\n'
    text += "from __future__ import annotations\n\nFINGERPRINTS: dict[str, str] = {\n"
    HERE.write_text(text + "\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"{len(found)} models")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
