"""Whether weights fit a model, name by name and shape by shape, and putting them in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from rlu_cli.errors import InputError, printable

SHOWN = 3


@dataclass(frozen=True)
class Misfit:
    """How a state departs from a model; false when it does not.

    missing     names the model has and the state lacks
    unexpected  names the state has and the model lacks
    misshapen   sentences such as "fc.weight is (5, 64), not (10, 64)"
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.misshapen)

    def facts(self) -> list[tuple[str, str]]:
        """Labelled lines for an error, each naming a few."""
        kinds = (("lacks", self.missing), ("extra", self.unexpected), ("shape", self.misshapen))
        return [(label, _few(names)) for label, names in kinds if names]


def misfit(model: nn.Module, state: Mapping[str, Tensor]) -> Misfit:
    """Compare the names and shapes of `state` with those `model` has; values do not matter.

    A missing `num_batches_tracked` is no misfit: files from before PyTorch 0.4.1 have none.
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
    return Misfit(tuple(missing), tuple(unexpected), tuple(misshapen))


def load_weights(model: nn.Module, state: Mapping[str, Tensor], *, path: Path) -> None:
    """Put every tensor of `state`, read from `path`, into `model`; anything left over is E215.

    The model's own loading decides, since a user's module may rename keys on the way in.
    """
    try:
        # A plain dict carries no version, so PyTorch fills in batch counters that are not there.
        model.load_state_dict(dict(state), strict=True)
    except Exception as failure:
        found = misfit(model, state)
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
