"""Two checkpoints and labelled images → Evidence: both models are run, the heads are compared."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from rlu_cli.case.auxiliary import is_noise
from rlu_cli.checkpoints import CheckpointPair
from rlu_cli.errors import InputError, UsageError, printable
from rlu_cli.models import load_weights
from rlu_cli.models.input_scaling import Normalisation
from rlu_cli.types import Auxiliary, Head, Outputs

_EVAL_BATCH = 250
DEFAULT_BATCH = 64  # of training-mode passes when nobody told |B|


@dataclass(frozen=True)
class ForwardConfig:
    """How a model is shown the images.

    layer      name of the output layer
    normalise  input scaling
    training   training mode: batch statistics and dropout, as the client saw them
    batch      |B|, images per training-mode pass
    seed       of the order of images and of dropout
    """

    layer: str
    normalise: Normalisation
    training: bool
    batch: int
    device: torch.device
    seed: int


def choose_device(wanted: str) -> torch.device:
    """`auto` (CUDA when there is one), `cpu`, `cuda` or `cuda:i`.

    Raises UsageError E103 when the one asked for is not there, E101 when it is none of these.
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
            f"no device {wanted}: PyTorch {torch.__version__} sees {available} CUDA devices",
            hint="use --device cpu, or install a CUDA build of PyTorch (`rlu doctor` shows both)",
        )
    return torch.device(wanted)


def trains_differently(model: nn.Module) -> bool:
    """Whether training mode changes what the model computes: batch statistics or dropout."""
    kinds = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
    return any(isinstance(module, kinds) for module in model.modules())


class OutputsCache:
    """What global models made of images, so that a model that many clients start from runs once.

    Keeps the last few: an audit goes through the clients of one round after another.
    """

    def __init__(self, keep: int = 2) -> None:
        self._keep = keep
        self._outputs: dict[Hashable, Outputs] = {}

    def get(self, key: Hashable, look: Callable[[], Outputs]) -> Outputs:
        """The Outputs kept under `key`, else what `look` gives, kept from now on."""
        if key not in self._outputs:
            found = look()
            while len(self._outputs) >= self._keep:
                del self._outputs[next(iter(self._outputs))]
            self._outputs[key] = found
        return self._outputs[key]


def fingerprint(auxiliary: Auxiliary) -> Hashable:
    """Tells sets of auxiliary images apart: their source and which of its images were taken."""
    means = auxiliary.images.double().mean((1, 2, 3))
    taken = (means.numpy().tobytes(), auxiliary.labels.numpy().tobytes())
    return (auxiliary.sha256, tuple(auxiliary.images.shape), taken)


def evaluate_pair(
    model: nn.Module, pair: CheckpointPair, auxiliary: Auxiliary, config: ForwardConfig
) -> tuple[Outputs, Outputs]:
    """What the model makes of the images before and after the round, seen in the same way."""
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
    """Embeddings and logits of every image, read at the output layer by a hook.

    In training mode the images go through in batches of |B|, in one seeded order that mixes the
    classes; the last batch is filled up from the start of the order and the surplus dropped.
    `state` is copied into the model, so its own buffers stay as they were.

    Raises InputError E215 when the model cannot run on the images, E207 when its logits are not
    finite.
    """
    load_weights(model, state, path=path)
    model.to(config.device).train(config.training)
    count = len(auxiliary.images)
    order = mixed_order(count, config.seed)
    embeddings, logits = _run(model, auxiliary.images, order, config)
    if not torch.isfinite(logits).all():
        raise InputError(
            "E207",
            f"the model in {printable(path)} gives logits that are not finite",
            hint="its training diverged, or the architecture or scaling is not the one it had",
        )
    labels = auxiliary.labels[order].to(config.device)
    seen = Outputs(embeddings[:count], logits[:count], labels)
    return _for_every_class(seen, auxiliary.classes) if is_noise(auxiliary) else seen


def mixed_order(count: int, seed: int) -> Tensor:
    """The order in which `outputs` shows the images, and gives its rows: it mixes the classes."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def _run(
    model: nn.Module, images: Tensor, order: Tensor, config: ForwardConfig
) -> tuple[Tensor, Tensor]:
    """Embeddings (≥ A, L) and logits (≥ A, N) in `order`, surplus rows last."""
    seen: list[tuple[Tensor, Tensor]] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append((inputs[0].detach().flatten(1), output.detach().flatten(1)))

    hook = _output_layer(model, config.layer).register_forward_hook(keep)
    rows: list[tuple[Tensor, Tensor]] = []
    try:
        # What a user's own model prints must not end up in the report.
        with redirect_stdout(sys.stderr), torch.inference_mode(), seeded_dropout(model, config):
            for batch in pass_batches(order, config):
                seen.clear()
                model(config.normalise(images[batch].to(config.device)))
                rows.append(_last(seen, config.layer, len(batch)))
    except Exception as problem:  # whatever the user's own code raises
        raise _cannot_run(images, problem) from problem
    finally:
        hook.remove()
    embeddings, logits = zip(*rows, strict=True)
    return torch.cat(embeddings).float(), torch.cat(logits).float()


def _output_layer(model: nn.Module, layer: str) -> nn.Module:
    try:
        return model.get_submodule(layer)
    except AttributeError:
        raise InputError(
            "E215",
            f"the model has no module {printable(layer)!r}, where the file has its output layer",
            hint="name another output layer with --layer, or another --model",
        ) from None


def _last(seen: list[tuple[Tensor, Tensor]], layer: str, rows: int) -> tuple[Tensor, Tensor]:
    if not seen or len(seen[-1][1]) != rows:
        raise ValueError(f"its output layer {printable(layer)} did not see one row per image")
    return seen[-1]


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
    """Positions per pass: whole batches of |B| in training mode, else plain chunks."""
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
    """Draw dropout masks on the CPU from the seed, so that every device and both models agree.

    draw  uniform numbers of a shape; None for those of a generator that starts with `view.seed`
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


def _for_every_class(seen: Outputs, classes: int) -> Outputs:
    """Noise has no class: its logits stand for each of them in turn."""
    rows = len(seen.logits)
    labels = torch.arange(classes, device=seen.logits.device).repeat_interleave(rows)
    return Outputs(seen.embeddings, seen.logits.repeat(classes, 1), labels)


def with_bias(head: Head, before: Outputs, after: Outputs) -> Head:
    """The head with a bias: a layer without one is read as if its mean input were known.

    ΔW_j = -η Σ ∇_j e ≈ Δb_j ē, so that Δb_j = ΔW_j · ē / ‖ē‖², ē the mean auxiliary embedding
    over both ends of the round.
    """
    if head.bias is not None:
        return head
    mean = mean_embedding(before, after).to(head.weight)
    return replace(head, bias=head.weight @ mean / (mean @ mean))


def mean_embedding(before: Outputs, after: Outputs) -> Tensor:
    """Mean embedding (L,) of the auxiliary images over both ends of the round, on the CPU."""
    return ((before.embeddings.mean(0) + after.embeddings.mean(0)) / 2).cpu()
