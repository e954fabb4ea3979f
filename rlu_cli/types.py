"""The values that pass between the steps: frozen dataclasses, shapes and units in their docstrings.

N classes, L width of the last hidden layer, A auxiliary images, m local steps, |B| batch size,
K labels in all. `S[n, j]` reads: row n is the true class, column j the class predicted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:  # `rlu --help` reads settings without loading torch
    from torch import Tensor

    from rlu_cli.numerics.posterior import Posterior

T = TypeVar("T")
ProgressCallback = Callable[[str], None]  # called with a sentence on what is going on


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
    """One value the run depends on, and where it came from (`"flag"`, `"RLU_LR"`, a file, …).

    contradicted  what other files say of it, where one of them was believed
    """

    value: Any
    source: str
    contradicted: tuple[Setting, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint file, read without running anything in it.

    path      the file or folder
    sha256    of the whole file; of a folder's files with their names
    format    as in the table of formats: "torch-zip", "safetensors", "npz", …
    state     parameters and buffers by name, on the CPU, floating ones in float32 or float64
    wrappers  keys that were opened to reach the state, outermost first, such as ("model",)
    prefixes  name prefixes that were stripped, such as ("module.",)
    facts     settings the file itself tells ("lr", "momentum", …), each with the place it stood in
    narrow    the narrower type that was widened, "float16" or "bfloat16", if any
    momentum  momentum buffers of the optimiser by parameter name, where the file has them
    objects   classes and functions of Python objects in the file, which were not built
    positional  whether the file has no names: its tensors are known by their order
    named     whether the names in `state` are those of a model, not numbers in the file's order
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
    objects: tuple[str, ...] = ()
    positional: bool = False
    named: bool = True


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
    """One model's outputs on the auxiliary images.

    embeddings  (A, L) input of the output layer; for noise images, which stand for every class in
                turn, the rows of one class
    logits      (A, N)
    labels      (A,)
    gates       (A, N) share of the positions at which a ReLU after the output layer, a convolution,
                lets each class through; None without one
    """

    embeddings: Tensor
    logits: Tensor
    labels: Tensor
    gates: Tensor | None = None

    @cached_property
    def probabilities(self) -> Tensor:
        """Softmax of every image's logits, (A, N) float64, on the CPU; computed once."""
        return self.logits.double().cpu().softmax(1)


@dataclass(frozen=True)
class BatchMean:
    """The mean input of one BatchNorm layer over the client's batches, from its running mean.

    layer     name of the module
    mean      (C,) Σ_i weights[i] × mean input of batch i, from the running means of both files
    weights   (m',) of the layer's m' passes, summing to 1
    rounding  (C,) standard deviation of the rounding error of `mean`
    inputs    at each interpolation point (A, C): spatial mean of the layer's input for each
              auxiliary image
    """

    layer: str
    mean: Tensor
    weights: Tensor
    rounding: Tensor
    inputs: tuple[Tensor, ...]


@dataclass(frozen=True)
class Interpolation:
    """Outputs on the auxiliary images at points θ_g + s (θ_c - θ_g) between the two checkpoints.

    points   s from 0 to 1, increasing; 0 alone for a single step
    outputs  one Outputs per point, with the images in the same order
    means    the last BatchNorm layers whose buffers moved, input to output; where there are any,
             the outputs were computed under the client's own batch statistics
    notes    why there are none, in sentences
    """

    points: tuple[float, ...]
    outputs: tuple[Outputs, ...]
    means: tuple[BatchMean, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class VirtualPopulation:
    """Virtual clients with known labels, and the statistics of their updates and of the client's.

    shares     (R, N) label shares of the virtual clients
    rows       (R, D) statistics of each virtual client's update, in any units
    observed   (D,)   the same statistics of the client under study
    closeness  (R,)   weight of each virtual client; those drawn near a first estimate weigh more
    """

    shares: Tensor
    rows: Tensor
    observed: Tensor
    closeness: Tensor


@dataclass(frozen=True)
class GradientFreeOffset:
    """The part of every state of a round that would be there with all gradients zero.

    Weight decay, a scheme's memory and an old momentum buffer move the client along a few fixed
    directions, so each of the m + 1 states is a linear combination of them.

    coefficients  (m + 1, k): offset[τ] = Σ_i coefficients[τ, i] · directions[i]
    directions    k Heads
    """

    coefficients: Tensor
    directions: tuple[Head, ...]

    def __getitem__(self, state: int) -> Head:
        """θ_global - θ^τ with all gradients zero; the last one is h of Table 1."""
        parts = zip(self.coefficients[state].tolist(), self.directions, strict=True)
        scaled: list[Head] = [direction * factor for factor, direction in parts]
        total, *rest = scaled
        for part in rest:
            total = total + part
        return total


@dataclass(frozen=True)
class Observation(Generic[T]):
    """Key of something that only some methods look at, and that is computed on request.

    name     as `rlu methods` lists it
    summary  what is observed, in a few words
    trains   whether virtual clients are trained for it
    """

    name: str
    summary: str
    trains: bool = False


@dataclass(frozen=True)
class Evidence:
    """All that an attack may look at: schemes act before it, attacks after it.

    update       Head, θ_client - θ_global of the output layer; `bias` is never None here
    weights      (m + 1, m): row τ gives θ^τ - θ_global = -lr Σ_i weights[τ, i] ∇^i - offset[τ];
                 the last row is the ρ of the final update
    offset       the gradient-free part of each state; None for none
    batch_sizes  (m,) samples in each step's batch; None when |B| is not known
    lr           learning rate η of the round; 1 where it is not known
    before       Outputs of the global model
    after        Outputs of the client's model
    biased       whether the layer has a bias of its own (else Δb was derived from ΔW)
    origin       Head of the global model itself
    smoothing    ε of label smoothing: a label counts 1 - ε, and ε/N for every class
    passes       full passes over the same samples, each with the same labels; 1 where unknown
    lr_known     whether the learning rate is known
    linear       whether the update is linear in the round's gradients, as `weights` has it
    observed     what was computed on request, by its key
    """

    update: Head
    weights: Tensor
    offset: GradientFreeOffset | None
    batch_sizes: tuple[int, ...] | None
    lr: float
    before: Outputs
    after: Outputs
    origin: Head
    biased: bool = True
    smoothing: float = 0.0
    passes: int = 1
    lr_known: bool = True
    linear: bool = True
    observed: Mapping[Observation[Any], Any] = field(default_factory=dict)

    def __getitem__(self, observation: Observation[T]) -> T:
        """What was observed. A method lists what it needs, so that it is there."""
        found: T = self.observed[observation]
        return found

    def with_observed(self, observation: Observation[T], value: T) -> Evidence:
        """The evidence with one more observation, or another value of it."""
        return replace(self, observed={**self.observed, observation: value})

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
        return self.update if self.offset is None else self.update + self.offset[-1]

    @property
    def gradient(self) -> Head:
        """G = -(Δθ + h) / (lr Σ_τ ρ^τ): the mean gradient of a step, scheme removed, float64.

        weight (N, L) and bias (N,), on the CPU; a present class pulls its entries below zero.
        """
        learned, scale = self.learned, -1 / (self.lr * float(self.weights[-1].sum()))
        assert learned.bias is not None, "a layer without a bias has one derived"
        return Head(learned.weight.double().cpu(), learned.bias.double().cpu()) * scale

    @property
    def signal(self) -> Tensor:
        """u = (Δb + h) / (lr Σ_τ ρ^τ): the bias update per step, scheme removed, (N,)."""
        bias = self.learned.bias
        assert bias is not None, "a layer without a bias has one derived"
        return bias / (self.lr * float(self.weights[-1].sum()))


@dataclass(frozen=True)
class VirtualTrial:
    """A virtual client, observed as the client under study is.

    evidence  of its update, with the interpolation
    shares    (N,) its label shares
    """

    evidence: Evidence
    shares: Tensor


class Status(Enum):
    """How an estimate ended; the value is the sentence a user reads."""

    SETTLED = "search converged: no further move brings the simulated round closer to the update"
    SOLVED = "solver converged (which does not mean that the counts are right)"
    COMPUTED = "computed in closed form"
    STOPPED = "stopped at the requested number of iterations, as the paper's search does"
    UNSETTLED = "search did not converge: it was still improving when its iterations ran out"
    UNSOLVED = "solver failed: the least-squares problem was not solved"
    UNDETERMINED = "undetermined: the update singles out no class; labels are spread uniformly"
    UNINFORMATIVE = "no better than a uniform guess: the error is as large as without any evidence"

    @property
    def ok(self) -> bool:
        failed = (Status.UNSETTLED, Status.UNSOLVED, Status.UNDETERMINED, Status.UNINFORMATIVE)
        return self not in failed


@dataclass(frozen=True)
class Recovery:
    """What an attack found.

    shares             (N,) float64, ≥ 0, summing to 1
    counts             (N,) int64, ≥ 0, summing to K; None when K is not known
    status             how the estimate ended
    diagnostics        figures by name, all JSON values
    present            (N,) bool: the classes found, for a method that gives a set; None where the
                       counts say it
    notes              what a reader should know about this answer, in sentences
    unconstrained      (N,) shares before the constraint z ≥ 0, where the method has them: only
                       these can be averaged over rounds without bias
    covariance         (N, N) of the shares' error, where the method knows it
    shared_covariance  (N, N) the part of it that every round seen with the same images shares
    lr                 learning rate estimated, and its standard deviation, where none was given
    posterior          distribution of the shares, where the method computed it itself
    """

    shares: Tensor
    counts: Tensor | None
    status: Status
    diagnostics: Mapping[str, Any] = field(default_factory=dict)
    present: Tensor | None = None
    notes: tuple[str, ...] = ()
    unconstrained: Tensor | None = None
    covariance: Tensor | None = None
    shared_covariance: Tensor | None = None
    lr: tuple[float, float] | None = None
    posterior: Posterior | None = None
