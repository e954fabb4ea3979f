"""Compare a state dict with a model by names and shapes, and load it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from rlu_cli.errors import InputError, RluError, printable

SHOWN = 3


@dataclass(frozen=True)
class Mismatch:
    """Differences between a state dict and a model; false if there are none.

    missing     names only in the model
    unexpected  names only in the state dict
    misshapen   sentences such as "fc.weight is (5, 64), not (10, 64)"
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.misshapen)

    def facts(self) -> list[tuple[str, str]]:
        """Labelled lines for an error, each with the first few names."""
        kinds = (("lacks", self.missing), ("extra", self.unexpected), ("shape", self.misshapen))
        return [(label, _few(names)) for label, names in kinds if names]


def mismatch(model: nn.Module, state: Mapping[str, Tensor]) -> Mismatch:
    """Compare names and shapes of `state` and `model`; values do not matter.

    A missing `num_batches_tracked` is no mismatch: files from before PyTorch 0.4.1 have none.
    """
    own = model.state_dict()
    missing = [n for n in own if n not in state and not n.endswith("num_batches_tracked")]
    unexpected = [n for n in state if n not in own]
    shared = [n for n in own if n in state and isinstance(own[n], Tensor) and not is_lazy(own[n])]
    misshapen = [
        f"{n} is {tuple(state[n].shape)}, not {tuple(own[n].shape)}"
        for n in shared
        if state[n].shape != own[n].shape
    ]
    return Mismatch(tuple(missing), tuple(unexpected), tuple(misshapen))


def load_weights(model: nn.Module, state: Mapping[str, Tensor], *, path: Path) -> None:
    """Load every tensor of `state`, read from `path`, into `model`.

    The model's own `load_state_dict` decides, since a user's module may rename keys in it. Raises
    InputError E215 when the state dict does not fit.
    """
    try:
        # A plain dict has no version, so PyTorch fills in missing batch counters.
        model.load_state_dict(dict(state), strict=True)
    except RluError:
        raise
    except Exception as failure:
        found = mismatch(model, state)
        raise InputError(
            "E215",
            f"the weights in {printable(path)} do not fit the model",
            facts=found.facts(),
            why="" if found else printable(f"{type(failure).__name__}: {failure}"),
            hint="name the architecture they were trained with: --model, --model-arg "
            "(rlu models lists both)",
        ) from failure


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(printable(name, 80) for name in names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown}  ({len(names) - SHOWN} more)"
