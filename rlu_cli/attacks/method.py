"""What a method of label recovery is: what it can do, how it is made, what it takes for granted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rlu_cli.numerics.output_means import class_confidence
from rlu_cli.types import Evidence, Recovery

COUNTS, SET = "counts", "set"
# What may be observed on request.
DUMMIES, LINE, VIRTUAL, ENSEMBLE = "dummies", "line", "virtual", "mixed"
TRAINING = frozenset({VIRTUAL, ENSEMBLE})  # those that train virtual clients
_TRAINED = 1.5  # own-class confidence over chance, above which a model has learned something
_NEGATIVE = 1e-3  # share of an embedding's size below zero that rounding does not explain


@dataclass(frozen=True)
class Options:
    """Settings of the estimate that a user may choose; most methods have none.

    draws, iterations, search  of RLU
    seed                       of every draw
    """

    draws: int = 10_000
    iterations: int | None = None
    search: str = "checked"
    seed: int = 0


Attack = Callable[[Evidence], Recovery]


@dataclass(frozen=True)
class Method:
    """One row of the table of methods: the columns of the paper's Table 7, and more.

    title           as its paper writes it
    paper           where it comes from
    build           Options → the attack itself
    gives           "counts", or "set": the classes present, with labels spread over them
    batch           reads more than one example
    repeated        a label may repeat
    any_activation  the last hidden layer may be negative
    several_steps   made for updates of more than one step
    trained         made for trained models too
    auxiliary       needs labelled images
    any_optimiser   needs no client that is linear in its gradients
    any_rate        needs no learning rate, and tells it
    needs           what must be observed besides: "dummies", "line", "virtual", "mixed"
    """

    title: str
    paper: str
    build: Callable[[Options], Attack]
    gives: str = COUNTS
    batch: bool = True
    repeated: bool = True
    any_activation: bool = True
    several_steps: bool = True
    trained: bool = True
    auxiliary: bool = False
    any_optimiser: bool = False
    any_rate: bool = False
    needs: frozenset[str] = frozenset()


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
