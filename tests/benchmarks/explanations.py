"""How often the report names a mistake that was made, and how often one that was not.

    python tests/benchmarks/explanations.py CACHE --data DATA                    # seeds 0 to 9
    python tests/benchmarks/explanations.py CACHE --data DATA --first-seed 100   # the final rates

CACHE keeps the pretrained global models. DATA holds CIFAR10.npz and MNIST32.npz; without it only
the drawn digits are used. Every run is simulated and explained in one process. Printed are the rate
of right runs with an explanation, and for each mistake the rate of runs in which it is named.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rlu_cli.audit.attack import _select_model
from rlu_cli.audit.explanations import explain
from rlu_cli.case.build import Case, build_case
from rlu_cli.checkpoints import open_checkpoint
from rlu_cli.evidence.assemble import assemble, evaluate_ends, gradient_free_offset
from rlu_cli.evidence.forward import OutputsCache
from rlu_cli.models import build_model, load_weights
from rlu_cli.models.input_scaling import parse_normalisation
from rlu_cli.settings.layers import ARGUMENT, flag_layer
from rlu_cli.simulator.aggregate import average
from rlu_cli.simulator.client import State, train_client
from rlu_cli.simulator.images import load_pool
from rlu_cli.simulator.local import Local
from rlu_cli.simulator.plan import Plan
from rlu_cli.simulator.pool import Holding, set_apart
from rlu_cli.types import Auxiliary

DIGITS = "digits"


@dataclass(frozen=True)
class World:
    """A global model and the images around it.

    images    "digits" or the name of an .npz file
    model     architecture, with its arguments
    accuracy  training accuracy of the pretrained global model; 0 for an untrained one
    other     images of another kind, for the mistake of that name
    weight    how often it is drawn, in relation to the others
    """

    images: str
    model: str
    arguments: Mapping[str, Any]
    accuracy: float
    other: str = "CIFAR10"
    weight: float = 1.0

    @property
    def trained(self) -> bool:
        return self.accuracy > 0


EIGHTH = {"act": "relu", "width": 0.125, "hidden": 128}
WORLDS = {
    "dlen0": World(DIGITS, "lenet5", {"act": "relu"}, 0),
    "dlen60": World(DIGITS, "lenet5", {"act": "relu"}, 0.6),
    "dlen90": World(DIGITS, "lenet5", {"act": "relu"}, 0.9),
    "dtanh0": World(DIGITS, "lenet5", {"act": "tanh"}, 0),
    "dvgg0": World(DIGITS, "vgg16", EIGHTH, 0, weight=0.5),
    "dvgg80": World(DIGITS, "vgg16", EIGHTH, 0.8, weight=0.5),
    "len0": World("CIFAR10", "lenet5", {"act": "relu"}, 0, DIGITS, weight=0.5),
    "cnn60": World("CIFAR10", "cnn", {"act": "relu"}, 0.6, DIGITS, weight=0.2),
    "mn90": World("MNIST32", "lenet5", {"act": "relu"}, 0.9, "CIFAR10"),
}
ALPHAS = (0.1, 0.5, 5.0, 100.0)
SHAPES = ((1, 64, None), (10, 64, None), (10, 16, None), (2, 64, 300), (2, 32, 200))
RATES = (0.01, 0.05)
MODEL_SEED = 0


@dataclass(frozen=True)
class Trial:
    """One simulated run: world, local training, and the seed of the client and its images."""

    world: str
    alpha: float
    epochs: int
    batch: int
    samples: int | None
    lr: float
    per_class: int
    seed: int

    @property
    def plan(self) -> Plan:
        local = Local(samples=self.samples)
        return Plan(lr=self.lr, batch_size=self.batch, epochs=self.epochs, local=local)


def draw(seed: int, worlds: Sequence[str]) -> Trial:
    """A trial of one of the worlds, drawn by its seed."""
    rng = np.random.default_rng((seed, 21))
    weights = np.array([WORLDS[name].weight for name in worlds])
    epochs, batch, samples = SHAPES[rng.integers(len(SHAPES))]
    return Trial(
        world=rng.choice(worlds, p=weights / weights.sum()),
        alpha=ALPHAS[rng.integers(len(ALPHAS))],
        epochs=epochs,
        batch=batch,
        samples=samples,
        lr=RATES[rng.integers(len(RATES))],
        per_class=(100, 40)[rng.integers(2)],
        seed=seed,
    )


# The federation


class Lab:
    """Global models, images and clients, made once and kept."""

    def __init__(self, folder: Path, data: Path | None) -> None:
        self.folder, self.data = folder, data
        self.holding = cache(self._holding)
        self.start = cache(self._start)

    @property
    def worlds(self) -> list[str]:
        known = (
            {DIGITS, *(path.stem for path in self.data.glob("*.npz"))} if self.data else {DIGITS}
        )
        return [name for name, world in WORLDS.items() if world.images in known]

    def source(self, images: str) -> str:
        return images if self.data is None or images == DIGITS else str(self.data / f"{images}.npz")

    def _holding(self, images: str) -> Holding:
        return set_apart(load_pool(self.source(images), MODEL_SEED), 100, MODEL_SEED)

    def _start(self, name: str, seed: int = MODEL_SEED) -> State:
        """The global model of a world, from the cache or made by `rlu simulate`."""
        world = WORLDS[name]
        folder = self.folder / (name if seed == MODEL_SEED else f"{name}-{seed}")
        if not (folder / "r000" / "global.pt").is_file():
            words = ["simulate", "--out", folder, "--images", self.source(world.images), "-q"]
            words += ["--model", world.model, "--seed", seed, "--only-clients", 0, "--force"]
            words += [w for k, v in world.arguments.items() for w in ("--model-arg", f"{k}={v}")]
            words += ["--pretrain", world.accuracy] if world.trained else []
            subprocess.run([sys.executable, "-m", "rlu_cli", *map(str, words)], check=True)
        return dict(open_checkpoint(folder / "r000" / "global.pt").state)

    def model(self, name: str, state: State) -> torch.nn.Module:
        world = WORLDS[name]
        classes = len(self.holding(world.images).class_names)
        model = build_model(world.model, arguments=dict(world.arguments), classes=classes)
        load_weights(model, state, path=Path("global"))
        return model

    def client(
        self, trial: Trial, start: State, plan: Plan, number: int = 0, normalise: str = "half"
    ) -> State:
        """The model that client `number` sends."""
        world = WORLDS[trial.world]
        holding = self.holding(world.images)
        own = self.owned(trial, holding, number, plan)
        return train_client(
            self.model(trial.world, start),
            holding.client_images[own],
            holding.client_labels[own],
            plan,
            classes=len(holding.class_names),
            normalise=parse_normalisation(normalise),
            seed=(trial.seed, number),
        ).state

    def owned(self, trial: Trial, holding: Holding, number: int, plan: Plan) -> NDArray[np.int64]:
        """The client's images: classes from a Dirichlet distribution, as many as it trains on."""
        rng = np.random.default_rng((trial.seed, 22, number))
        classes, total = len(holding.class_names), plan.local.samples or plan.steps.total or 0
        shares = rng.dirichlet([trial.alpha] * classes)
        counts = rng.multinomial(total, shares)
        members = [np.flatnonzero(holding.client_labels == n) for n in range(classes)]
        drawn = [rng.choice(m, c, replace=c > len(m)) for m, c in zip(members, counts, strict=True)]
        return np.concatenate(drawn)

    def auxiliary(self, trial: Trial, images: str | None = None) -> Auxiliary:
        """The server's images."""
        images = images or WORLDS[trial.world].images
        holding = self.holding(images)
        rng = np.random.default_rng((trial.seed, 23))
        classes = len(holding.class_names)
        index = np.concatenate(
            [
                rng.permutation(np.flatnonzero(holding.aux_labels == n))[: trial.per_class]
                for n in range(classes)
            ]
        )
        pixels = torch.from_numpy(holding.aux_images[index]).permute(0, 3, 1, 2).float() / 255
        labels = torch.from_numpy(holding.aux_labels[index])
        names = tuple(map(str, range(classes)))
        return Auxiliary(pixels.contiguous(), labels, names, images, f"{images}-{trial.seed}")

    def round(self, trial: Trial, start: State, clients: int = 3) -> tuple[list[State], State]:
        """The models of several clients, and their mean: the next global model."""
        sent = [self.client(trial, start, trial.plan, number) for number in range(clients)]
        return sent, average(sent, [1] * clients)


@dataclass(frozen=True)
class Given:
    """What the user gives: both files, images, and settings."""

    before: State
    after: State
    auxiliary: Auxiliary
    settings: dict[str, Any]


def right(lab: Lab, trial: Trial) -> Given:
    """Everything as it was."""
    start = lab.start(trial.world)
    after = lab.client(trial, start, trial.plan)
    return Given(start, after, lab.auxiliary(trial), settings_of(trial))


def settings_of(trial: Trial) -> dict[str, Any]:
    world = WORLDS[trial.world]
    settings = {
        "model": world.model,
        "model_args": dict(world.arguments),
        "lr": trial.lr,
        "epochs": trial.epochs,
        "batch_size": trial.batch,
        "normalize": "half",
        "device": "cpu",
    }
    return settings if trial.samples is None else {**settings, "samples": trial.samples}


def case_of(given: Given) -> Case:
    flags = flag_layer(given.settings, ARGUMENT)
    return build_case(given.before, given.after, given.auxiliary, flags)


# The worlds and runs in which a mistake can be made


def anywhere(trial: Trial) -> bool:
    return True


def untrained(trial: Trial) -> bool:
    return not WORLDS[trial.world].trained


def trained(trial: Trial) -> bool:
    return WORLDS[trial.world].trained


def several_steps(trial: Trial) -> bool:
    return trial.plan.steps.steps > 1


def cheap_to_pretrain(trial: Trial) -> bool:
    return untrained(trial) or WORLDS[trial.world].images == DIGITS


def scaling_matters(trial: Trial) -> bool:
    """BatchNorm takes the scaling out of an untrained model."""
    return trained(trial) or WORLDS[trial.world].model != "vgg16"


def of_fixed_size(trial: Trial) -> bool:
    return trained(trial)


# The mistakes


def swapped(lab: Lab, trial: Trial) -> Given:
    given = right(lab, trial)
    return replace(given, before=given.after, after=given.before)


def earlier_global(lab: Lab, trial: Trial) -> Given:
    """The global model of the round before."""
    given = right(lab, trial)
    _, following = lab.round(trial, given.before)
    return replace(given, after=lab.client(trial, following, trial.plan))


def other_model(lab: Lab, trial: Trial) -> Given:
    """The global model of another federation."""
    given = right(lab, trial)
    return replace(given, before=lab.start(trial.world, 1))


def aggregated(lab: Lab, trial: Trial) -> Given:
    """The global model from after aggregation."""
    given = right(lab, trial)
    sent, following = lab.round(trial, given.before)
    return replace(given, before=following, after=sent[0])


def said(**factors: float) -> Callable[[Lab, Trial], Given]:
    """A setting given as a multiple of what it was."""

    def make(lab: Lab, trial: Trial) -> Given:
        given = right(lab, trial)
        told = {k: type(given.settings[k])(given.settings[k] * f) for k, f in factors.items()}
        return replace(given, settings={**given.settings, **told})

    return make


def unsaid(**local: Any) -> Callable[[Lab, Trial], Given]:
    """An optimiser's setting that the user does not give."""

    def make(lab: Lab, trial: Trial) -> Given:
        given, plan = right(lab, trial), trial.plan
        changed = dict(local)
        lr = changed.pop("lr", plan.lr)
        plan = replace(plan, lr=lr, local=replace(plan.local, **changed))
        after = lab.client(trial, given.before, plan)
        return replace(given, after=after, settings={**given.settings, "lr": lr})

    return make


def permuted(lab: Lab, trial: Trial) -> Given:
    """The classes of the images in another order."""
    given, rng = right(lab, trial), np.random.default_rng((trial.seed, 24))
    order = torch.from_numpy(rng.permutation(given.auxiliary.classes))
    images = replace(given.auxiliary, labels=order[given.auxiliary.labels])
    return replace(given, auxiliary=images)


def text_order(lab: Lab, trial: Trial) -> Given:
    """Folders 1, 2, …, N in numeric order; the client's loader read them in text order."""
    given = right(lab, trial)
    count = given.auxiliary.classes
    names = [str(n + 1) for n in range(count)]
    position = torch.tensor([sorted(names).index(name) for name in names])
    inverse = torch.argsort(position)  # class index in text order -> folder number
    images = replace(
        given.auxiliary, labels=inverse[given.auxiliary.labels], class_names=tuple(names)
    )
    return replace(given, auxiliary=images)


def other_scaling(lab: Lab, trial: Trial) -> Given:
    given, rng = right(lab, trial), np.random.default_rng((trial.seed, 25))
    named = ("none", "imagenet")[rng.integers(2)]
    return replace(given, settings={**given.settings, "normalize": named})


def other_kind(lab: Lab, trial: Trial) -> Given:
    given = right(lab, trial)
    return replace(given, auxiliary=lab.auxiliary(trial, WORLDS[trial.world].other))


def delta(lab: Lab, trial: Trial) -> Given:
    """The client's update, called its weights."""
    given = right(lab, trial)
    given = replace(given, settings={**given.settings, "update_kind": "weights"})
    moved = {k: v - given.before[k] if v.is_floating_point() else v for k, v in given.after.items()}
    return replace(given, after=moved)


def smaller_images(lab: Lab, trial: Trial) -> Given:
    """Images of half the size that the model was trained on."""
    given = right(lab, trial)
    images = torch.nn.functional.avg_pool2d(given.auxiliary.images, 2)
    return replace(given, auxiliary=replace(given.auxiliary, images=images))


MISTAKES: dict[str, tuple[Callable[[Lab, Trial], Given], tuple[str, ...], Callable[[Trial], bool]]]
SCALE = ("learning rate", "steps")
MISTAKES = {
    "pair swapped": (swapped, ("swapped",), anywhere),
    "global of the round before": (earlier_global, ("other global", *SCALE), anywhere),
    "global of another model": (other_model, ("other global",), cheap_to_pretrain),
    "global after aggregation": (aggregated, ("other global",), anywhere),
    "lr × 10": (said(lr=10), SCALE, anywhere),
    "lr × 2": (said(lr=2), SCALE, untrained),
    "lr / 2": (said(lr=0.5), SCALE, untrained),
    "epochs × 2": (said(epochs=2), SCALE, untrained),
    "lr × 2, trained": (said(lr=2), SCALE, trained),
    "lr / 2, trained": (said(lr=0.5), SCALE, trained),
    "momentum .9": (unsaid(momentum=0.9), SCALE, several_steps),
    "Adam": (unsaid(optimizer="adam", lr=1e-3), ("adam",), anywhere),
    "label smoothing .1": (unsaid(label_smoothing=0.1), ("label smoothing",), trained),
    "weight decay .001": (unsaid(weight_decay=1e-3), ("weight decay",), anywhere),
    "clipping": (unsaid(clip=0.5), SCALE, anywhere),
    "classes permuted": (permuted, ("class order",), trained),
    "text order": (text_order, ("class order",), trained),
    "other scaling": (other_scaling, ("input scaling",), scaling_matters),
    "other kind of images": (other_kind, ("other images",), anywhere),
    "smaller images": (smaller_images, ("image size", "refused E215"), of_fixed_size),
    "delta": (delta, ("delta",), anywhere),
}


def inputs_of(given: Given) -> tuple[Any, ...]:
    """The arguments of `explain`, as `attack` assembles them."""
    case = case_of(given)
    offset, update = gradient_free_offset(case), case.pair.update
    learned = update if offset is None else update + offset[-1]
    ranked, model, config = _select_model(case, learned)
    ends = evaluate_ends(case, model, config, OutputsCache(), ranked[0].model)
    return case, model, config, assemble(case, offset, ends), lambda text: None


def trials(
    lab: Lab, first: int, count: int, fits: Callable[[Trial], bool]
) -> Iterator[tuple[int, Trial]]:
    found, seed = 0, first
    while found < count:
        trial = draw(seed, lab.worlds)
        if fits(trial):
            yield seed, trial
            found += 1
        seed += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("cache", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--right", type=int, default=300)
    parser.add_argument("--each", type=int, default=20)
    parser.add_argument("--only", nargs="*", help="mistakes to try")
    parser.add_argument("--log", type=Path, help="one JSON line a run")
    given = parser.parse_args()
    torch.set_num_threads(1)
    lab = Lab(given.cache, given.data)
    log = given.log.open("a") if given.log else None
    table: list[tuple[str, tuple[str, ...], Callable[..., Given], Callable[[Trial], bool], int]]
    table = [("right", (), right, anywhere, given.right)]
    table += [(n, names, make, fits, given.each) for n, (make, names, fits) in MISTAKES.items()]
    for name, names, make, fits, count in table:
        if given.only is not None and name not in given.only:
            continue
        found: Counter[str] = Counter()
        seconds, first = 0.0, given.first_seed + (0 if name == "right" else 1000)
        for seed, trial in trials(lab, first, count, fits):
            try:
                inputs = inputs_of(make(lab, trial))
                started = time.perf_counter()
                explanation = explain(*inputs)
                seconds += time.perf_counter() - started
                said = "nothing" if explanation is None else explanation.name
                text = "" if explanation is None else explanation.sentence
            except Exception as problem:  # refused: the user learns of the mistake too
                said, text = (
                    f"refused {getattr(problem, 'code', type(problem).__name__)}",
                    str(problem),
                )
            found[said] += 1
            if log:
                line = {"kind": name, "seed": seed, "said": said, "text": text, **vars(trial)}
                log.write(json.dumps(line) + "\n")
                log.flush()
        hits = sum(found[one] for one in (names or ("nothing",)))
        kind = "right runs with nothing to explain" if name == "right" else name
        print(
            f"{kind:34} {hits:4}/{count:<4} {hits / count:6.1%}  {seconds / count:.2f} s",
            dict(found),
            flush=True,
        )


if __name__ == "__main__":
    main()
