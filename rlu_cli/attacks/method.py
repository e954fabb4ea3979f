"""One row of the table of methods: what it can do, what it needs, what it takes for granted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from rlu_cli.numerics.output_means import class_confidence
from rlu_cli.types import Evidence, Observation, Recovery

COUNTS, SET = "counts", "set"
_TRAINED = 1.5  # own-class confidence over chance, above which a model has learned something
_NEGATIVE = 1e-3  # share of an embedding's size below zero that rounding does not explain

Attack = Callable[[Evidence], Recovery]


@dataclass(frozen=True)
class Method:
    """One method: the columns of the paper's Table 7, and more.

    title                     as its paper writes it
    paper                     where it comes from
    attack                    the method itself: a function, or a frozen dataclass whose fields are
                              its settings, named as in `settings`
    gives                     "counts", or "set": the classes present, with labels spread over them
    batch                     reads more than one example
    repeated                  a label may repeat
    any_activation            the last hidden layer may be negative
    several_steps             made for updates of more than one step
    trained                   made for trained models too
    auxiliary                 needs labelled images
    any_optimiser             works for clients whose update is not linear in its gradients
    needs_lr                  needs the learning rate; others estimate it
    needs                     what must be observed besides the plain evidence
    built_of_virtual_clients  whether virtual clients are the method, so that its expected accuracy
                              comes from them too
    """

    title: str
    paper: str
    attack: Attack
    gives: str = COUNTS
    batch: bool = True
    repeated: bool = True
    any_activation: bool = True
    several_steps: bool = True
    trained: bool = True
    auxiliary: bool = False
    any_optimiser: bool = False
    needs_lr: bool = True
    needs: frozenset[Observation[Any]] = frozenset()
    built_of_virtual_clients: bool = False

    @property
    def trains(self) -> bool:
        """Whether virtual clients are trained for it."""
        return any(need.trains for need in self.needs)

    def configured(self, value: Callable[[str], Any]) -> Attack:
        """The attack under the user's settings; `value` gives a setting by name, or None."""
        if not is_dataclass(self.attack) or isinstance(self.attack, type):
            return self.attack
        given = {one.name: value(one.name) for one in fields(self.attack)}
        known = {name: setting for name, setting in given.items() if setting is not None}
        return replace(self.attack, **known)


def concerns(method: Method, evidence: Evidence, *, noise: bool) -> list[str]:
    """What the method takes for granted and this case does not give, a sentence each.

    noise  whether noise images stand in for auxiliary ones
    """
    total, classes = evidence.total, evidence.classes
    negative = _negative_share(evidence)
    confidence = float(class_confidence(evidence.before).diagonal().mean())
    several = total != 1
    holds: Mapping[str, bool] = {
        "it reads a single example, and a batch only by its signs": not method.batch and several,
        "it assumes that no label repeats": not method.repeated and method.batch and several,
        "it assumes an input of the output layer that is never negative, and "
        f"{negative:.0%} of its size is": not method.any_activation and negative > _NEGATIVE,
        f"it was made for one step, and the client took {evidence.steps}": (
            not method.several_steps and evidence.steps > 1
        ),
        "it was made for untrained models, and this one gives the right class "
        f"{confidence:.2f} on average": not method.trained and confidence > _TRAINED / classes,
        "it needs labelled images, and noise stands in for them": method.auxiliary and noise,
    }
    return [sentence for sentence, present in holds.items() if present]


def learned_something(evidence: Evidence) -> bool:
    """Whether the global model tells the auxiliary images' classes apart."""
    confidence = float(class_confidence(evidence.before).diagonal().mean())
    return confidence > _TRAINED / evidence.classes


def _negative_share(evidence: Evidence) -> float:
    """How much of the embeddings' size lies below zero."""
    seen = evidence.before.embeddings
    size = float(seen.abs().sum())
    return float(seen.clamp(max=0).abs().sum()) / size if size else 0.0
