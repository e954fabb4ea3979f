"""Which tensors of two files are the same, whatever each program put before or into their names."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

State = Mapping[str, Tensor]
Shapes = Mapping[str, tuple[int, ...]]

# Parts of a name that torch.nn.DataParallel, torch.compile, FSDP, Opacus and PEFT put into it.
_WRAPPERS = frozenset(
    {"module", "_orig_mod", "_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
    | {"base_layer"}
)
_SAVED = re.compile(r"(?<![^.])modules_to_save\.[^.]+\.")  # PEFT: of a layer trained in full
# Parts of names of what a trainer keeps beside the model, and no forward pass needs.
_BESIDE = frozenset(
    {"crit", "criterion", "loss", "loss_fn", "loss_func", "metric", "metrics", "n_averaged"}
    | {"teacher", "ema", "ema_model", "model_ema", "original_module"}
)
_ADAPTER = re.compile(r"(?<![^.])lora_(A|B|embedding_A|embedding_B|magnitude_vector)(?![^.])")
_BUFFER = re.compile(r"(?<![^.])(running_mean|running_var|num_batches_tracked)$")
_TRIED = 64  # names that propose prefixes, and names each is compared with
_FINALISTS = 16  # pairs of prefixes that are counted over all names


@dataclass(frozen=True)
class Match:
    """Names of one state dict beside those of another.

    names     name in the first → name in the second
    prefixes  what stands before the common part, in the first and in the second
    """

    names: Mapping[str, str]
    prefixes: tuple[str, str] = ("", "")

    @property
    def renamed(self) -> bool:
        return any(first != second for first, second in self.names.items())


def match_names(first: Shapes, second: Shapes) -> Match:
    """Pair the names of two state dicts by their longest common suffix, for tensors of equal shape.

    Names that already agree are kept. Else wrappers' parts ("_orig_mod", "modules_to_save.default")
    are left out wherever they stand, and the pair of prefixes is taken under which most tensors
    agree in name and shape. Plain numbers are no names: `positional.named_by` goes first.
    """
    same = {name: name for name in first if name in second}
    if len(same) == min(len(first), len(second)):
        return Match(same)
    return _by_suffix(first, second) or Match(same)


def is_beside(name: str, tensor: Tensor) -> bool:
    """Whether a tensor is none of a model's: a loss's weights, a counter, a teacher, an adapter."""
    parts = set(name.split("."))
    return bool(parts & _BESIDE) or bool(_ADAPTER.search(name)) or tensor.numel() == 1


def is_buffer(name: str, tensor: Tensor) -> bool:
    """Whether a tensor is no parameter: a running statistic, a counter, an index."""
    return bool(_BUFFER.search(name)) or not tensor.is_floating_point()


def shapes_of(state: State) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def plain_name(name: str) -> str:
    """A name without the parts that wrappers put into it: `conv1._orig_mod.weight`."""
    saved = _SAVED.sub("", name)
    return ".".join(part for part in saved.split(".") if part not in _WRAPPERS)


def _by_suffix(first: Shapes, second: Shapes) -> Match | None:
    """The pair of prefixes under which most tensors agree in name and shape; None if none does."""
    ours, theirs = _plain(first), _plain(second)
    proposed = _proposals({n: first[o] for n, o in ours.items()},
                          {n: second[o] for n, o in theirs.items()})  # fmt: skip
    best: dict[str, str] = {}
    prefixes = ("", "")
    for one, other in [("", ""), *proposed]:
        found = {
            original: theirs[partner]
            for name, original in ours.items()
            if name.startswith(one) and (partner := other + name[len(one) :]) in theirs
            if first[original] == second[theirs[partner]]
        }
        if len(found) > len(best):
            best, prefixes = found, (one, other)
    return Match(best, prefixes) if best else None


def _plain(shapes: Shapes) -> dict[str, str]:
    """Names without wrappers' parts → the names themselves, what only wrappers need left out."""
    found: dict[str, str] = {}
    for name in shapes:
        if "original_module" not in name.split("."):
            found.setdefault(plain_name(name), name)
    return found


def _proposals(first: Shapes, second: Shapes) -> list[tuple[str, str]]:
    """Pairs of prefixes that single names propose, the most frequent first, no teacher before."""
    ends: dict[tuple[str, tuple[int, ...]], list[str]] = defaultdict(list)
    for name, shape in second.items():
        ends[name.split(".")[-1], shape].append(name)
    votes: Counter[tuple[str, str]] = Counter()
    for name in _spread(list(first)):
        for other in _spread(ends[name.split(".")[-1], first[name]]):
            votes[_without_common_suffix(name, other)] += 1
    ranked = sorted(votes, key=lambda pair: (_is_beside_prefix(pair), -votes[pair], len(str(pair))))
    return ranked[:_FINALISTS]


def _spread(names: Sequence[str]) -> Sequence[str]:
    """At most `_TRIED` names, evenly over all."""
    return names[:: max(1, -(-len(names) // _TRIED))]


def _is_beside_prefix(pair: tuple[str, str]) -> bool:
    return any(part in _BESIDE for prefix in pair for part in prefix.split("."))


def _without_common_suffix(name: str, other: str) -> tuple[str, str]:
    """What is left of two names without the longest common end, in whole parts."""
    one, two = name.split("."), other.split(".")
    while one and two and one[-1] == two[-1]:
        one.pop()
        two.pop()
    return "".join(f"{part}." for part in one), "".join(f"{part}." for part in two)
