"""Other ways to feed the images: another input scaling, another size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from torch.nn import functional

from rlu_cli.audit.explanations.clues import Clues, better_fit
from rlu_cli.audit.explanations.explanation import MARGIN, Explanation
from rlu_cli.audit.explanations.scale import expected
from rlu_cli.audit.explanations.trial import Trial, sampled, try_images
from rlu_cli.evidence.batchnorm_statistics import norm_layers
from rlu_cli.models.input_scaling import PRESETS, Normalisation, parse_normalisation
from rlu_cli.numerics.dynamics import implied_embedding

_LEARNED = 2.0  # accuracy over chance from which a model is judged by its accuracy
_BETTER = 1.05  # accuracy in another way over that in the given one, at least
_LOOK = 3.0  # drop of the squared log length from which a scaling is tried in training
# Standard deviation of the log length of the implied embedding, untrained and trained.
_LENGTH, _LENGTH_TRAINED = 0.08, 0.45
_DIRECTIONS = 15.0  # that the angle of a trained model's update counts for
_SIZES = (2.0, 0.5)  # sizes tried, over the given one

# Scalings in common use beside the presets, as --normalize takes them.
KNOWN: Mapping[str, str] = {
    "CIFAR-10": "0.4914,0.4822,0.4465/0.247,0.2435,0.2616",
    "CIFAR-100": "0.5071,0.4865,0.4409/0.2673,0.2564,0.2762",
    "MNIST": "0.1307/0.3081",
}


def scalings() -> dict[str, Normalisation]:
    """Every known scaling by the value of --normalize."""
    return {**PRESETS, **{text: parse_normalisation(text) for text in KNOWN.values()}}


def input_scaling(clues: Clues) -> Explanation | None:
    """Another input scaling: by accuracy on a trained model, else by the embedding's length.

    gain  trained: (b - c)² / (b + c) for b images right in the other scaling alone and c in the
          given one alone (McNemar); untrained: that of the angle of a virtual
          client's update, for the scaling whose embeddings have the length the update implies
    """
    if not clues.labelled:
        return None
    sample, given = sampled(clues.auxiliary), clues.config.normalise
    tried = {
        name: try_images(*clues.setting, sample, s) for name, s in scalings().items() if s != given
    }
    usual = clues.trial
    if usual is None:
        return None
    others = {name: trial for name, trial in tried.items() if trial is not None}
    if not clues.learned and norm_layers(clues.model):
        return None  # normalised away: no scaling fits better, and none matters
    name, gain = _most_right(usual, others) if clues.learned else ("", 0.0)
    what = _accuracies(usual, others[name]) if name else ""
    if gain < MARGIN:
        name, gain = _most_alike(clues, usual, others)
        what = "the update is more like that of a virtual client"
    called = next((f"{k} ({v})" for k, v in KNOWN.items() if v == name), name)
    return Explanation(
        "input scaling",
        gain,
        f"the images seem to be scaled otherwise than in training; with {called} {what}",
        f"give --normalize {name}",
    )


def image_size(clues: Clues) -> Explanation | None:
    """Another size of the images, under which a trained global model is right more often.

    gain  (b - c)² / (b + c) as for the input scaling
    """
    if not clues.labelled or not clues.learned:
        return None
    sample, side = sampled(clues.auxiliary), clues.auxiliary.images.shape[-1]
    if not takes_any_size(clues):
        return None
    usual = clues.trial
    if usual is None:
        return None
    others = {}
    for factor in _SIZES:
        size = round(side * factor)
        images = functional.interpolate(
            sample.images, size=(size, size), mode="bilinear", antialias=True
        )
        resized = replace(sample, images=images)
        trial = try_images(*clues.setting, resized, clues.config.normalise)
        if trial is not None:
            others[str(size)] = trial
    if not others:
        return None
    name, gain = _most_right(usual, others)
    if others[name].accuracy < _LEARNED / clues.evidence.classes:
        return None
    return Explanation(
        "image size",
        gain,
        f"the model seems to be trained on images of {name} pixels, not {side}: "
        f"with {name} {_accuracies(usual, others[name])}",
        f"give --image-size {name}",
    )


def takes_any_size(clues: Clues) -> bool:
    """Whether a trained model's layers take images of any size, by trying a few larger ones."""
    few = sampled(clues.auxiliary)
    few = replace(few, images=few.images[:2].repeat(1, 1, 2, 2), labels=few.labels[:2])
    return try_images(*clues.setting, few, clues.config.normalise) is not None


def _most_right(usual: Trial, others: Mapping[str, Trial]) -> tuple[str, float]:
    """The way with the most images right, and its McNemar χ²."""
    name = max(others, key=lambda one: int(others[one].right.sum()))
    alone, lost = others[name].right & ~usual.right, usual.right & ~others[name].right
    more, fewer = int(alone.sum()), int(lost.sum())
    if int(others[name].right.sum()) < _BETTER * int(usual.right.sum()):
        return name, 0.0
    return name, (more - fewer) ** 2 / max(more + fewer, 1)


def _best_length(clues: Clues, usual: Trial, others: Mapping[str, Trial]) -> tuple[str, float]:
    """The scaling whose embeddings have the length that the update implies, and its gain."""
    implied = float(implied_embedding(clues.evidence.learned).double().norm())
    means = [o.embeddings.double().mean(0) for o in (clues.evidence.before, clues.evidence.after)]
    grown = float(((means[0] + means[1]) / 2).norm() / means[0].norm().clamp_min(1e-12))

    def misfit(trial: Trial) -> float:
        return (math.log(max(implied / max(trial.length * grown, 1e-12), 1e-12)) / _LENGTH) ** 2

    name = min(others, key=lambda one: misfit(others[one]))
    return name, misfit(usual) - misfit(others[name])


def _most_alike(clues: Clues, usual: Trial, others: Mapping[str, Trial]) -> tuple[str, float]:
    """The scaling with which a virtual client is most like this one, and its gain.

    Tried are the one whose embeddings have the length that the update implies, and on an untrained
    model the presets: skewed labels change that length too.
    """
    best, drop = _best_length(clues, usual, others)
    tried = {best} if drop > _LOOK else set()
    tried |= set() if clues.learned else others.keys() & PRESETS.keys()
    gains = {name: _by_training(clues, scalings()[name]) for name in sorted(tried)}
    if best in gains:
        gains[best] += clues.learned * drop * (_LENGTH / _LENGTH_TRAINED) ** 2
    name = max(gains, key=lambda one: gains[one], default=best)
    return name, gains.get(name, 0.0)


def _by_training(clues: Clues, normalise: Normalisation) -> float:
    """Gain of a scaling by length and angle of a virtual client that trains with it."""
    if clues.fit is None:
        return 0.0
    other = replace(clues, config=replace(clues.config, normalise=normalise))
    right, given = expected(clues, clues.fit), clues.fit
    found = other.fit_to(given.shares, clues.case.training)
    angle = clues.learned * better_fit(given, found, _DIRECTIONS)
    return right.misfit(given) - right.misfit(found) + angle


def _accuracies(usual: Trial, other: Trial) -> str:
    shares = [trial.accuracy for trial in (other, usual)]
    return f"the global model is right on {shares[0]:.0%} of them instead of {shares[1]:.0%}"
