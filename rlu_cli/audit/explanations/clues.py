"""What several explanations look at, computed once: parameters, quick shares, virtual clients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import median

import torch
from scipy.optimize import nnls
from torch import Tensor, nn
from torch.nn import functional

from rlu_cli.attacks.noise_model import added_noise
from rlu_cli.audit.explanations.trial import Trial, sampled, try_images
from rlu_cli.case.auxiliary import is_noise
from rlu_cli.case.build import Case
from rlu_cli.checkpoints import CheckpointPair
from rlu_cli.errors import InputError
from rlu_cli.evidence.forward import ForwardConfig
from rlu_cli.evidence.virtual_population import train_clients
from rlu_cli.local_training.description import LocalTraining
from rlu_cli.models import load_weights
from rlu_cli.types import Auxiliary, Checkpoint, Evidence, Outputs, ProgressCallback

Update = Mapping[str, Tensor]  # of each parameter, by name, float64 on the CPU

_SUM_WEIGHT = 1e3  # of the row Σz = 1 against the others
# Images that a virtual client may train on, per auxiliary image: seven clients then cost about ten
# times the two passes over the auxiliary images.
_COSTLY = 1.0
_TURNED = 0.5  # cosine of the weights of two models below which they are not of one training
_LARGE = 32  # elements of a tensor whose direction counts
_NOISY = 0.25  # part of the squared length of an update that added noise makes, from which it tells
_DIVERGED = -3.0  # log length of an update over one that diverged
_SINE = 0.01  # squared sine between virtual clients that differ in nothing but their images


@dataclass(frozen=True)
class Fit:
    """How a client's update compares with a virtual client's, over all parameters.

    log_length  log of the length of the client's update over that of the virtual one
    cosine      of the angle between the two
    shares      (N,) label shares of the virtual client
    """

    log_length: float
    cosine: float
    shares: Tensor

    @property
    def sine_squared(self) -> float:
        """Of the angle, or 1 where it is obtuse; a little more, as virtual clients differ too."""
        return 1 - max(self.cosine, 0.0) ** 2 + _SINE


@dataclass(frozen=True)
class Clues:
    """Everything an explanation may look at.

    case      the pair of checkpoints, the images, the settings
    model     the selected architecture
    config    its forward config
    evidence  without observations
    progress  progress callback
    """

    case: Case
    model: nn.Module
    config: ForwardConfig
    evidence: Evidence
    progress: ProgressCallback

    @property
    def auxiliary(self) -> Auxiliary:
        return self.case.auxiliary

    @property
    def pair(self) -> CheckpointPair:
        return self.case.pair

    @property
    def labelled(self) -> bool:
        """Whether the server has labelled images, rather than noise."""
        return not is_noise(self.auxiliary)

    def parameters_of(self, checkpoint: Checkpoint) -> dict[str, Tensor]:
        """The model's parameters in a checkpoint, float64, under the model's own names."""
        load_weights(self.model, checkpoint.state, path=checkpoint.path)
        return {n: p.detach().double().cpu().clone() for n, p in self.model.named_parameters()}

    @cached_property
    def origin(self) -> dict[str, Tensor]:
        """The parameters of the global model."""
        return self.parameters_of(self.pair.before)

    @cached_property
    def end(self) -> dict[str, Tensor]:
        """The parameters of the client's model."""
        return self.parameters_of(self.pair.after)

    @cached_property
    def update(self) -> dict[str, Tensor]:
        """Δθ of every parameter."""
        return {name: value - self.origin[name] for name, value in self.end.items()}

    @cached_property
    def turn(self) -> float:
        """Median cosine of the two models' weights, over the tensors."""
        cosines = [
            float(functional.cosine_similarity(value.flatten(), self.end[name].flatten(), dim=0))
            for name, value in self.origin.items()
            if value.dim() > 1 and value.numel() >= _LARGE
        ]
        return median(cosines) if cosines else 1.0

    @property
    def turned(self) -> bool:
        """Whether the two models cannot be of one training."""
        return self.turn < _TURNED

    @cached_property
    def confidence(self) -> Tensor:
        """S[n, j] averaged over both ends of the round, (N, N)."""
        before, after = (
            class_confidences(o, self.evidence.classes)
            for o in (self.evidence.before, self.evidence.after)
        )
        return before if self.evidence.steps == 1 else (before + after) / 2

    def shares_at(self, scale: float) -> Tensor:
        """Quick shares z (N,) if the update were `scale` times as large as the settings say.

        A negative scale is that of a round run backwards.

        min ‖u / scale - (I - S̄ᵀ) z‖, z ≥ 0, Σz = 1, S̄ the mean over both ends.
        """
        signal = self.evidence.signal.double().cpu() / scale
        matrix = torch.eye(len(signal), dtype=torch.float64) - self.confidence.T
        rows = torch.cat([matrix, torch.full((1, len(signal)), _SUM_WEIGHT, dtype=torch.float64)])
        target = torch.cat([signal, torch.tensor([_SUM_WEIGHT], dtype=torch.float64)])
        shares = torch.from_numpy(nnls(rows.numpy(), target.numpy())[0])
        return shares / shares.sum()

    @property
    def images(self) -> int:
        """Images of the client's round, each counted in every pass."""
        return self.case.plan.total or self.case.plan.steps * self.config.batch

    @cached_property
    def can_train(self) -> bool:
        """Whether a virtual client is affordable, and comparable with this one."""
        training = self.case.training
        affordable = self.images <= _COSTLY * len(self.auxiliary.images)
        comparable = not self.case.remembers and training.lr_known and not self.noisy
        return self.labelled and affordable and comparable

    @cached_property
    def noisy(self) -> bool:
        """Whether noise was added that makes a good part of the update's length, as by DP-SGD.

        From the column sums of the output layer (`noise_model.added_noise`), for all parameters.
        """
        scale = self.evidence.lr * float(self.evidence.weights[-1].sum())
        count = sum(value.numel() for value in self.update.values())
        noise = added_noise(self.evidence) * scale**2 * count
        return noise > _NOISY * dot(self.update, self.update)

    def replica(
        self,
        shares: Tensor,
        training: LocalTraining | None = None,
        start: Checkpoint | None = None,
        seed: int = 0,
    ) -> dict[str, Tensor]:
        """Δθ of a virtual client with these label shares.

        training  None for that of the settings
        start     checkpoint it starts from; None for the global model
        """
        start = start or self.pair.before
        (client,) = train_clients(
            self.model,
            start,
            self.auxiliary,
            training or self.case.training,
            replace(self.config, seed=self.config.seed + seed),
            shares[None],
        )
        origin, end = self.parameters_of(start), self.parameters_of(client.checkpoint)
        return {name: end[name] - origin[name] for name in end}

    @property
    def setting(self) -> tuple[nn.Module, Checkpoint, ForwardConfig]:
        """The global model as `try_images` takes it."""
        return self.model, self.pair.before, self.config

    @cached_property
    def trial(self) -> Trial | None:
        """The global model in evaluation mode on a sample of the images, as they are given."""
        return try_images(*self.setting, sampled(self.auxiliary), self.config.normalise)

    @cached_property
    def fit(self) -> Fit | None:
        """How the client's update compares with a virtual client's under the given settings."""
        if not self.can_train:
            return None
        return self.fit_to(self.shares_at(1.0), self.case.training)

    def fit_to(self, shares: Tensor, training: LocalTraining) -> Fit:
        """How the update compares with that of a virtual client trained in another way.

        One whose training diverges has gone much too far.
        """
        try:
            return compared(self.update, self.replica(shares, training), shares)
        except InputError:
            return Fit(_DIVERGED, 0.0, shares)

    @cached_property
    def accuracy(self) -> float:
        """Share of the auxiliary images that the global model classifies right."""
        before = self.evidence.before
        return float((before.logits.argmax(1) == before.labels).double().mean())

    @property
    def learned(self) -> float:
        """How much the global model has learned: from 0 at twice chance or less to 1 at five times.

        By its accuracy, or its confidence, which is high on images of another kind too.
        """
        sure = 0.0 if self.trial is None else self.trial.sure
        over_chance = max(self.accuracy, sure) * self.evidence.classes
        return min(max((over_chance - 2) / 3, 0.0), 1.0)


def class_confidences(outputs: Outputs, classes: int) -> Tensor:
    """S[n, j]: mean softmax of class j over the images of class n, (N, N) float64."""
    labels = outputs.labels.cpu()
    sums = torch.zeros(classes, classes, dtype=torch.float64)
    sums.index_add_(0, labels, outputs.probabilities)
    counts = torch.bincount(labels, minlength=classes).clamp_min(1)
    return sums / counts[:, None]


def dot(first: Update, second: Update) -> float:
    """Inner product over all parameters."""
    return sum(float(first[name].flatten() @ second[name].flatten()) for name in first)


def length(update: Update) -> float:
    """Length over all parameters."""
    return math.sqrt(dot(update, update))


def opposite(update: Update) -> dict[str, Tensor]:
    """-Δθ."""
    return {name: -value for name, value in update.items()}


def compared(client: Update, virtual: Update, shares: Tensor) -> Fit:
    """Compare a client's update with that of a virtual client with these shares."""
    lengths = max(length(client), 1e-300), max(length(virtual), 1e-300)
    cosine = dot(client, virtual) / (lengths[0] * lengths[1])
    return Fit(math.log(lengths[0] / lengths[1]), cosine, shares)


def better_fit(given: Fit, other: Fit, directions: float) -> float:
    """Gain of another hypothesis by the angle of its virtual client: D log(sin² / sin'²).

    directions  D, the calibrated number of independent directions
    """
    return directions * math.log(given.sine_squared / other.sine_squared)
