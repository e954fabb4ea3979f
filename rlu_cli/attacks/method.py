"""One row of the table of methods: its abilities, requirements and assumptions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from rlu_cli.numerics.output_means import class_confidence
from rlu_cli.types import Evidence, Observation, Recovery

COUNTS, SET = "counts", "set"
_TRAINED = 1.5  # own-class confidence over chance, above which a model has learned something
_NEGATIVE = 1e-3  # negative share of the embeddings' absolute sum not due to rounding

Attack = Callable[[Evidence], Recovery]


@dataclass(frozen=True)
class Method:
    """One method: the columns of the paper's Table 7, and more.

    title                     name as in its paper
    paper                     reference
    attack                    a function, or a frozen dataclass whose fields are its settings, named
                              as in `settings`
    gives                     "counts", or "set": the classes present, with labels distributed over
                              them
    batch                     supports more than one example
    repeated                  labels may repeat
    any_activation            the input of the output layer may be negative
    several_steps             made for updates of several steps too
    trained                   made for trained models too
    auxiliary                 needs labelled images
    any_optimiser             supports clients whose update is not linear in its gradients
    needs_lr                  needs the learning rate; other methods estimate it
    needs                     observations needed besides the plain evidence
    built_of_virtual_clients  whether the method consists of virtual clients, which then also give
                              its expected accuracy
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
        """The attack with the user's settings; `value` returns a setting by name, or None."""
        if not is_dataclass(self.attack) or isinstance(self.attack, type):
            return self.attack
        given = {one.name: value(one.name) for one in fields(self.attack)}
        known = {name: setting for name, setting in given.items() if setting is not None}
        return replace(self.attack, **known)


def concerns(method: Method, evidence: Evidence, *, noise: bool) -> list[str]:
    """Assumptions of the method that the case violates, one sentence each.

    noise  whether noise images replace auxiliary ones
    """
    total, classes = evidence.total, evidence.classes
    negative = _negative_share(evidence)
    confidence = float(class_confidence(evidence.before).diagonal().mean())
    several = total != 1
    holds: Mapping[str, bool] = {
        "it is made for a single example; of a batch it uses only gradient signs": not method.batch
        and several,
        "it assumes that no label repeats": not method.repeated and method.batch and several,
        "it assumes that the input of the output layer is never negative, but "
        f"{negative:.0%} of its size is": not method.any_activation and negative > _NEGATIVE,
        f"it was made for one step, but the client took {evidence.steps}": (
            not method.several_steps and evidence.steps > 1
        ),
        "it was made for untrained models, but this one gives the true class a mean probability of "
        f"{confidence:.2f}": not method.trained and confidence > _TRAINED / classes,
        "it needs labelled images, but noise images are used instead": method.auxiliary and noise,
    }
    return [sentence for sentence, present in holds.items() if present]


def learned_something(evidence: Evidence) -> bool:
    """Whether the global model separates the classes of the auxiliary images better than chance."""
    confidence = float(class_confidence(evidence.before).diagonal().mean())
    return confidence > _TRAINED / evidence.classes


def _negative_share(evidence: Evidence) -> float:
    """Share of the embeddings' absolute sum that is negative."""
    embeddings = evidence.before.embeddings
    size = float(embeddings.abs().sum())
    return float(embeddings.clamp(max=0).abs().sum()) / size if size else 0.0
