"""Evaluate checkpoints on images: embeddings and logits at the output layer."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from rlu_cli.case.auxiliary import is_noise
from rlu_cli.checkpoints import CheckpointPair
from rlu_cli.errors import InputError, RluError, UsageError, printable
from rlu_cli.evidence.logit_hooks import LayerPass, watch_output_layer
from rlu_cli.models import load_weights
from rlu_cli.models.input_scaling import Normalisation
from rlu_cli.types import Auxiliary, Head, Outputs

_EVAL_BATCH = 250
_CLOSED = 1e-3  # least open share of a class
DEFAULT_BATCH = 64  # of training-mode passes if |B| is unknown


@dataclass(frozen=True)
class ForwardConfig:
    """How a model is evaluated on images.

    layer      name of the output layer, or several joined by a plus
    normalise  input scaling
    training   whether in training mode: batch statistics and dropout, as during local training
    batch      |B|, images per training-mode pass
    device     that runs the model
    seed       of the image order and of dropout
    rectified  whether a ReLU stands between the output layer, a 1×1 convolution, and its pooling
    """

    layer: str
    normalise: Normalisation
    training: bool
    batch: int
    device: torch.device
    seed: int
    rectified: bool = False


def choose_device(wanted: str) -> torch.device:
    """The device for `auto` (CUDA if available), `cpu`, `cuda` or `cuda:i`.

    Raises UsageError E103 if the device is not available, E101 for any other text.
    """
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "auto":
        return torch.device("cuda" if available else "cpu")
    kind, colon, index = wanted.partition(":")
    numbered = kind == "cuda" and index.isascii() and index.isdecimal()
    if kind not in ("cpu", "cuda") or (colon and not numbered):
        raise UsageError(
            "E101",
            f"unknown device {printable(wanted)!r}",
            hint="--device auto|cpu|cuda|cuda:INDEX",
        )
    if kind == "cuda" and int(index or 0) >= available:
        raise UsageError(
            "E103",
            f"no device {wanted}: PyTorch {torch.__version__} finds {available} CUDA devices",
            hint="use --device cpu, or install a CUDA build of PyTorch (`rlu doctor` shows both)",
        )
    return torch.device(wanted)


def trains_differently(model: nn.Module) -> bool:
    """Whether training mode changes what the model computes: batch statistics or dropout."""
    kinds = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
    return any(isinstance(module, kinds) for module in model.modules())


class OutputsCache:
    """Cached outputs of global models, so that one shared by many clients is evaluated once.

    Keeps the most recent entries only: an audit processes its clients round by round.
    """

    def __init__(self, keep: int = 2) -> None:
        self._keep = keep
        self._outputs: dict[Hashable, Outputs] = {}

    def get(self, key: Hashable, evaluate: Callable[[], Outputs]) -> Outputs:
        """The outputs cached under `key`; if there are none, those of `evaluate`, then cached."""
        if key not in self._outputs:
            found = evaluate()
            while len(self._outputs) >= self._keep:
                del self._outputs[next(iter(self._outputs))]
            self._outputs[key] = found
        return self._outputs[key]


def fingerprint(auxiliary: Auxiliary) -> Hashable:
    """Identifies a set of auxiliary images: the hash of its source and the images selected."""
    means = auxiliary.images.double().mean((1, 2, 3))
    selected = (means.numpy().tobytes(), auxiliary.labels.numpy().tobytes())
    return (auxiliary.sha256, tuple(auxiliary.images.shape), selected)


def evaluate_pair(
    model: nn.Module, pair: CheckpointPair, auxiliary: Auxiliary, config: ForwardConfig
) -> tuple[Outputs, Outputs]:
    """Outputs before and after the round, with the same image order and dropout masks."""
    before, after = (
        outputs(model, checkpoint.state, auxiliary, config, checkpoint.path) for checkpoint in pair
    )
    return before, after


def outputs(
    model: nn.Module,
    state: Mapping[str, Tensor],
    auxiliary: Auxiliary,
    config: ForwardConfig,
    path: Path,
) -> Outputs:
    """Embeddings and logits of every image, captured at the output layer by a hook.

    state  weights and buffers; copied into `model`, so that they stay unchanged
    path   of the checkpoint, for error messages

    In training mode, the images run in batches of |B|, in a seeded order that mixes the classes.
    The last batch is filled from the start of the order, and the surplus rows are dropped.

    Raises InputError E215 if the model cannot run on the images, E207 for logits that are not
    finite.
    """
    load_weights(model, state, path=path)
    model.to(config.device).train(config.training)
    count = len(auxiliary.images)
    order = mixed_order(count, config.seed)
    embeddings, logits, gates = _run(model, auxiliary.images, order, config)
    if not torch.isfinite(logits).all():
        raise InputError(
            "E207",
            f"the model in {printable(path)} gives logits that are not finite",
            hint="check that its training did not diverge, and check --model and --normalize",
        )
    labels = auxiliary.labels[order].to(config.device)
    gates = None if gates is None else gates[:count]
    found = Outputs(embeddings[:count], logits[:count], labels, gates)
    return _for_every_class(found, auxiliary.classes) if is_noise(auxiliary) else found


def mixed_order(count: int, seed: int) -> Tensor:
    """The order, mixed over classes, in which `outputs` runs the images and returns its rows."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def _run(
    model: nn.Module, images: Tensor, order: Tensor, config: ForwardConfig
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Embeddings (≥ A, L) and logits (≥ A, N) in `order`, surplus rows last, and gates."""
    rows: list[LayerPass] = []
    try:
        with (
            _watched(model, config) as passes,
            # What a user's own model prints must not end up in the report.
            redirect_stdout(sys.stderr),
            torch.inference_mode(),
            seeded_dropout(model, config),
        ):
            for batch in pass_batches(order, config):
                passes.clear()
                model(config.normalise(images[batch].to(config.device)))
                rows.append(_last(passes, config.layer, len(batch)))
    except RluError:
        raise
    except Exception as problem:  # whatever the user's own code raises
        raise _cannot_run(images, problem) from problem
    gates = [one.gates for one in rows if one.gates is not None]
    return (
        torch.cat([one.embeddings for one in rows]).float(),
        torch.cat([one.logits for one in rows]).float(),
        torch.cat(gates).float() if gates else None,
    )


@contextmanager
def _watched(model: nn.Module, config: ForwardConfig) -> Iterator[list[LayerPass]]:
    with ExitStack() as stack:
        try:
            watched = watch_output_layer(model, config.layer, rectified=config.rectified)
            passes = stack.enter_context(watched)
        except AttributeError:
            raise InputError(
                "E215",
                f"the model has no module {printable(config.layer)!r}, the output layer in the "
                "file",
                hint="give another output layer with --layer, or another --model",
            ) from None
        yield passes


def _last(passes: list[LayerPass], layer: str, rows: int) -> LayerPass:
    """The last use of the output layer in a forward pass."""
    if not passes or len(passes[-1].logits) != rows:
        raise ValueError(f"its output layer {printable(layer)} did not get one row per image")
    last = passes[-1]
    return LayerPass(last.embeddings.detach(), last.logits.detach(), last.gates)


def _cannot_run(images: Tensor, problem: Exception) -> InputError:
    if isinstance(problem, torch.cuda.OutOfMemoryError):
        return InputError(
            "E215",
            "the device ran out of memory on the auxiliary images",
            hint="use --device cpu, or fewer images with --aux-per-class N",
        )
    shape = "×".join(str(n) for n in images.shape[1:])
    return InputError(
        "E215",
        f"the model cannot run on images of {shape} (channels × height × width)",
        why=printable(f"{type(problem).__name__}: {problem}", 300),
        hint="give the size it was trained on with --image-size N, or another --model",
    )


def pass_batches(order: Tensor, config: ForwardConfig) -> tuple[Tensor, ...]:
    """Image positions per pass: full batches of |B| in training mode, else chunks."""
    if not config.training:
        return torch.split(order, _EVAL_BATCH)
    missing = -len(order) % config.batch
    filled = torch.cat([order, order.repeat(missing // len(order) + 1)[:missing]])
    return torch.split(filled, config.batch)


_CHANNEL_DROPOUT = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


@contextmanager
def seeded_dropout(
    model: nn.Module, config: ForwardConfig, draw: Callable[[Sequence[int]], Tensor] | None = None
) -> Iterator[None]:
    """Draw dropout masks on the CPU from the seed, the same for every device and both models.

    draw  maps a shape to uniform numbers; None for a generator seeded with `config.seed`
    """
    generator = torch.Generator().manual_seed(config.seed)
    uniform = draw or partial(torch.rand, generator=generator)

    def drop(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        rate = float(module.p)  # type: ignore[arg-type]
        shape = list(output.shape)
        if isinstance(module, _CHANNEL_DROPOUT):
            shape[2:] = [1] * (output.dim() - 2)
        kept = uniform(shape).ge(rate).to(output)
        return output * kept / (1 - rate) if rate < 1 else output * 0

    plain = [
        module
        for module in model.modules()
        if config.training and isinstance(module, (nn.Dropout, *_CHANNEL_DROPOUT))
    ]
    hooks = [module.eval().register_forward_hook(drop) for module in plain]
    devices = [config.device] if config.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(config.seed)
            yield
    finally:
        for hook in hooks:
            hook.remove()


def _for_every_class(noise: Outputs, classes: int) -> Outputs:
    """Repeat the logits of noise images once per class, since noise has no class."""
    rows = len(noise.logits)
    labels = torch.arange(classes, device=noise.logits.device).repeat_interleave(rows)
    gates = None if noise.gates is None else noise.gates.repeat(classes, 1)
    return Outputs(noise.embeddings, noise.logits.repeat(classes, 1), labels, gates)


def with_bias(head: Head, before: Outputs, after: Outputs) -> Head:
    """The head update with a bias update, derived from the weights if the layer has no bias.

    ΔW_j = -η Σ ∇_j e ≈ Δb_j ē gives Δb_j = ΔW_j · ē / ‖ē‖², with ē the mean auxiliary embedding
    over both ends of the round.
    """
    head = per_logit(head, before, after)
    if head.bias is not None:
        return head
    mean = mean_embedding(before, after).to(head.weight)
    return replace(head, bias=head.weight @ mean / (mean @ mean))


def per_logit(head: Head, before: Outputs, after: Outputs) -> Head:
    """The head update as if no ReLU stood between the output layer and its pooling.

    The gradient of class j reaches the layer at the share f_ij of the positions where image i lets
    it through, Σ_i (p_ij - y_ij) f_ij, so row j is divided by the mean f_j over images and both
    ends. That the client's images differ in f is left over as an error.
    """
    if before.gates is None or after.gates is None:
        return head
    mean = (before.gates.mean(0) + after.gates.mean(0)) / 2
    scale = 1 / mean.clamp_min(_CLOSED).to(head.weight)
    bias = None if head.bias is None else head.bias * scale
    return Head(head.weight * scale[:, None], bias)


def mean_embedding(before: Outputs, after: Outputs) -> Tensor:
    """Mean embedding (L,) of the auxiliary images over both ends of the round, on the CPU."""
    return ((before.embeddings.mean(0) + after.embeddings.mean(0)) / 2).cpu()
