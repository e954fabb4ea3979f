"""The values that pass between the steps: frozen dataclasses, shapes and units in their docstrings.

N classes, L width of the last hidden layer, A auxiliary images, m local steps, |B| batch size,
K labels in all. `S[n, j]` reads: row n is the true class, column j the class predicted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Head:
    """Weights of an output layer, or any linear combination of several.

    weight  (N, L)
    bias    (N,), or None for a layer without one
    """

    weight: Tensor
    bias: Tensor | None

    def __add__(self, other: Head) -> Head:
        bias = None if self.bias is None or other.bias is None else self.bias + other.bias
        return Head(self.weight + other.weight, bias)

    def __sub__(self, other: Head) -> Head:
        return self + other * -1.0

    def __mul__(self, factor: float) -> Head:
        return Head(self.weight * factor, None if self.bias is None else self.bias * factor)

    __rmul__ = __mul__


@dataclass(frozen=True)
class Setting:
    """One value the run depends on, and where it came from (`"flag"`, `"RLU_LR"`, a file, …)."""

    value: Any
    source: str


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint file, read without running anything in it.

    path      the file
    sha256    of the whole file
    format    "torch-zip", "torch-legacy" or "safetensors"
    state     parameters and buffers by name, on the CPU, floating ones in float32 or float64
    wrappers  keys that were opened to reach the state, outermost first, such as ("model",)
    prefixes  name prefixes that were stripped, such as ("module.",)
    facts     settings the file itself tells ("lr", "momentum", …), each with the place it stood in
    narrow    the narrower type that was widened, "float16" or "bfloat16", if any
    momentum  momentum buffers of the optimiser by parameter name, where the file has them
    """

    path: Path
    sha256: str
    format: str
    state: Mapping[str, Tensor]
    wrappers: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    facts: Mapping[str, Setting] = field(default_factory=dict)
    narrow: str | None = None
    momentum: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Auxiliary:
    """Labelled images the server holds.

    images       (A, C, H, W) float32 in 0…1, before normalisation
    labels       (A,) int64
    class_names  N names; position is the class index
    source       what was read, for the report
    sha256       of the file, or of the sorted list of relative path and file hash of a folder
    notes        what the user should know: the split taken, images skipped, …
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    source: str
    sha256: str
    notes: tuple[str, ...] = ()

    @property
    def classes(self) -> int:
        return len(self.class_names)


@dataclass(frozen=True)
class Outputs:
    """What one model makes of the auxiliary images.

    embeddings  (A, L) input of the output layer; of noise, which stands for every class in turn,
                the rows of one class
    logits      (A, N)
    labels      (A,)
    """

    embeddings: Tensor
    logits: Tensor
    labels: Tensor

    @cached_property
    def probabilities(self) -> Tensor:
        """Softmax of every image's logits, (A, N) float64, on the CPU; kept for the next reader."""
        return self.logits.double().cpu().softmax(1)


@dataclass(frozen=True)
class BatchMean:
    """What one BatchNorm layer's buffers tell of the client's batches, and the images' own inputs.

    layer     name of the module
    mean      (C,) Σ_i weights[i] × mean input of batch i, from the running means of both files
    weights   (m',) of the layer's m' passes, summing to 1
    rounding  (C,) standard deviation of what the files' precision leaves of `mean` uncertain
    inputs    at each point of the line (A, C): mean over space of the layer's input for each image
    """

    layer: str
    mean: Tensor
    weights: Tensor
    rounding: Tensor
    inputs: tuple[Tensor, ...]


@dataclass(frozen=True)
class Line:
    """The images seen from points θ_g + s (θ_c - θ_g) of the straight line through the round.

    points   s from 0 to 1, increasing; 0 alone for a single step
    outputs  one Outputs a point, their rows alike
    means    the last BatchNorm layers whose buffers tell of the client's batches, input to output;
             the outputs are then those under the client's own batch statistics
    notes    why there are none, in sentences
    """

    points: tuple[float, ...]
    outputs: tuple[Outputs, ...]
    means: tuple[BatchMean, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ensemble:
    """Virtual clients with known labels, and what they and the client under study handed in.

    shares     (R, N) of the virtual clients' labels
    rows       (R, D) figures of what each handed in, in any units
    observed   (D,)   the same of the client under study
    closeness  (R,)   how much each counts: those drawn near a first estimate count more
    """

    shares: Tensor
    rows: Tensor
    observed: Tensor
    closeness: Tensor


@dataclass(frozen=True)
class Drift:
    """The part of every state of a round that no gradient of it made.

    Decay, a scheme's memory and an old momentum buffer move a client along a few fixed directions,
    so that m + 1 states need only as many numbers each.

    coefficients  (m + 1, k): drift[τ] = Σ_i coefficients[τ, i] · directions[i]
    directions    k Heads
    """

    coefficients: Tensor
    directions: tuple[Head, ...]

    def __getitem__(self, state: int) -> Head:
        """θ_global - θ^τ as it would be with gradients of zero; the last is Table 1's h."""
        parts = zip(self.coefficients[state].tolist(), self.directions, strict=True)
        scaled: list[Head] = [direction * factor for factor, direction in parts]
        total, *rest = scaled
        for part in rest:
            total = total + part
        return total


@dataclass(frozen=True)
class Evidence:
    """All that an attack may look at: schemes act before it, attacks after it.

    update       Head, θ_client - θ_global of the output layer; `bias` is never None here
    weights      (m + 1, m): row τ gives θ^τ - θ_global = -lr Σ_i weights[τ, i] ∇^i - drift[τ];
                 the last row is the ρ of the final update
    drift        the part of each state that no gradient of this round made; None for none
    batch_sizes  (m,) samples in each step's batch; None when |B| is not known
    lr           learning rate η of the round; 1 where nobody knows it
    before       Outputs of the global model
    after        Outputs of the client's model
    biased       whether the layer has a bias of its own (else Δb was derived from ΔW)
    origin       Head of the global model itself
    smoothing    ε of label smoothing: a label counts 1 - ε, and ε/N for every class
    passes       full passes over the same samples, each with the same labels; 1 where unknown
    rated        whether the learning rate is known
    linear       whether the update is linear in the round's gradients, as `weights` has it
    tilt         on request, β such that auxiliary images weighted by p_y^β look as well learned as
                 the global model's training images; None where nobody said how well those are
    dummies      on request, both models' Outputs for dummy images, their labels telling the kind:
                 0 black, 1 white, 2 random
    line         on request, the images seen from points between both models
    again        beside `line`, the same under the images' own batch statistics for given shares
                 (N,) of the labels; None where the model cannot be run so
    virtual      on request, (N, N): row c is Δb + h of a virtual client that holds class c alone
    ensemble     on request, virtual clients with mixed labels
    """

    update: Head
    weights: Tensor
    drift: Drift | None
    batch_sizes: tuple[int, ...] | None
    lr: float
    before: Outputs
    after: Outputs
    origin: Head
    biased: bool = True
    smoothing: float = 0.0
    passes: int = 1
    rated: bool = True
    linear: bool = True
    tilt: float | None = None
    dummies: tuple[Outputs, Outputs] | None = None
    line: Line | None = None
    again: Callable[[Tensor], Line | None] | None = None
    virtual: Tensor | None = None
    ensemble: Ensemble | None = None

    @property
    def steps(self) -> int:
        return self.weights.shape[1]

    @property
    def classes(self) -> int:
        return self.before.logits.shape[1]

    @property
    def total(self) -> int | None:
        """K, the labels that went into the update; None when |B| is not known."""
        return None if self.batch_sizes is None else sum(self.batch_sizes)

    @property
    def learned(self) -> Head:
        """Δθ + h: the part of the update that the round's gradients made."""
        return self.update if self.drift is None else self.update + self.drift[-1]

    @property
    def gradient(self) -> Head:
        """G = -(Δθ + h) / (lr Σ_τ ρ^τ): the mean gradient of a step, scheme removed, float64.

        weight (N, L) and bias (N,), on the CPU; a present class pulls its entries below zero.
        """
        learned, scale = self.learned, -1 / (self.lr * float(self.weights[-1].sum()))
        assert learned.bias is not None, "observe() derives the bias of a layer that has none"
        return Head(learned.weight.double().cpu(), learned.bias.double().cpu()) * scale

    @property
    def signal(self) -> Tensor:
        """u = (Δb + h) / (lr Σ_τ ρ^τ): the bias update per step, scheme removed, (N,)."""
        bias = self.learned.bias
        assert bias is not None, "observe() derives the bias of a layer that has none"
        return bias / (self.lr * float(self.weights[-1].sum()))


class Status(Enum):
    """How an estimate ended; the value is the sentence a user reads."""

    SETTLED = "settled: no further move brings the simulated round closer to the observed one"
    SOLVED = "solved: the least-squares problem has its optimum"
    COMPUTED = "computed: a formula, with nothing to settle"
    STOPPED = "stopped at the number of iterations asked for, as the paper's search does"
    UNSETTLED = "not settled: the search was still improving when its iterations ran out"
    UNSOLVED = "not solved: the least-squares solver gave up"
    UNTOLD = "not told: the update singles out no class, so the labels are spread evenly"
    UNINFORMED = "no better than an even guess: the error is as large as that of knowing nothing"

    @property
    def ok(self) -> bool:
        failed = (Status.UNSETTLED, Status.UNSOLVED, Status.UNTOLD, Status.UNINFORMED)
        return self not in failed


@dataclass(frozen=True)
class Recovery:
    """What an attack found.

    shares       (N,) float64, ≥ 0, summing to 1
    counts       (N,) int64, ≥ 0, summing to K; None when K is not known
    status       how the estimate ended
    diagnostics  figures by name, all JSON values
    present      (N,) bool: the classes found, of a method that gives a set; None where the counts
                 say it
    notes        what a reader should know of this answer, in sentences
    unbounded    (N,) shares before any was kept from falling below 0, where the method knows them:
                 those of several rounds can be averaged, the bounded ones are too large for absent
                 classes
    covariance   (N, N) of the shares' error, where the method knows it
    common       (N, N) the part of it that other rounds seen with the same images share
    lr           learning rate found, and its standard deviation, where nobody told it
    """

    shares: Tensor
    counts: Tensor | None
    status: Status
    diagnostics: Mapping[str, Any] = field(default_factory=dict)
    present: Tensor | None = None
    notes: tuple[str, ...] = ()
    unbounded: Tensor | None = None
    covariance: Tensor | None = None
    common: Tensor | None = None
    lr: tuple[float, float] | None = None
