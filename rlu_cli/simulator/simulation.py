"""From a request to a federation that is ready to train, and its run folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rlu_cli.checkpoints import open_checkpoint
from rlu_cli.models import ARCHITECTURES, build_model, load_weights, parse_argument, runs_code
from rlu_cli.models.input_scaling import parse_normalisation
from rlu_cli.simulator.client import seeded
from rlu_cli.simulator.export import open_run, write_description
from rlu_cli.simulator.federation import federate
from rlu_cli.simulator.images import load_pool
from rlu_cli.simulator.partition import partition
from rlu_cli.simulator.plan import Plan, check_plan
from rlu_cli.simulator.pool import Pool, set_apart
from rlu_cli.simulator.pretrain import LR, OWN_CHECKS, OWN_LR
from rlu_cli.simulator.private import require_opacus, require_private
from rlu_cli.simulator.run_folder import RunFolder
from rlu_cli.simulator.trial import check_fit
from rlu_cli.simulator.work import Federation, Round
from rlu_cli.types import Checkpoint


@dataclass(frozen=True)
class Request:
    """One simulation as the user specifies it.

    images         "digits", a folder or an .npz file
    image_size     edge length to resize to
    model_args     K=V texts
    init           checkpoint with the initial weights; None draws them
    normalize      name or MEAN/STD
    aux_per_class  auxiliary images of each class
    """

    plan: Plan
    device: torch.device
    images: str = "digits"
    image_size: int | None = None
    model: str = "lenet5"
    model_args: tuple[str, ...] = ()
    init: Path | None = None
    normalize: str = "half"
    aux_per_class: int = 100


@dataclass(frozen=True)
class Simulation:
    """A prepared request: images partitioned, run folder opened and described."""

    request: Request
    federation: Federation
    factory: Callable[[], nn.Module]
    run: RunFolder

    def rounds(
        self,
        tick: Callable[[int], None] = lambda steps: None,
        progress: Callable[[str], None] = lambda text: None,
    ) -> Iterator[Round]:
        """Train, yielding each round once it is complete on disk.

        tick      called with the number of steps done
        progress  called with messages
        """
        return federate(self.federation, self.factory, self.run, tick=tick, progress=progress)


def prepare(request: Request, out: Path, *, force: bool = False) -> Simulation:
    """Partition the images, and open and describe the run folder.

    Raises UsageError or InputError for any invalid setting, images or folder, before training.
    """
    plan = request.plan
    check_plan(plan)
    if plan.defence.dp_noise is not None:
        require_opacus()
    normalise = parse_normalisation(request.normalize)
    given = dict(parse_argument(text) for text in request.model_args)
    initial = None if request.init is None else open_checkpoint(request.init)
    pool = load_pool(request.images, plan.seed, request.image_size)
    arguments = {**_named_defaults(request.model, pool), **given}
    factory = _factory(request.model, arguments, len(pool.class_names), initial)
    _refuse_unfit(request, factory, pool)
    holding = set_apart(pool, request.aux_per_class, plan.seed)
    labels = holding.client_labels
    least = max(plan.local.samples or 0, plan.batch_size)
    shares = partition(labels, plan.clients, plan.alpha, least, plan.seed)
    settings = _settings(request, arguments, pool, initial)
    run = open_run(out, settings, pool.class_names, force=force)
    counts = shares.counts(labels, len(pool.class_names)).tolist()
    record = {"source": pool.name, "redraws": shares.redraws, "partition": counts}
    write_description(run, _toml_table(request, arguments, pool), holding, record)
    pretraining = OWN_LR.get(request.model, LR), OWN_CHECKS.get(request.model, 1)
    federation = Federation(plan, holding, shares, normalise, request.device, *pretraining)
    return Simulation(request, federation, factory, run)


def _refuse_unfit(request: Request, factory: Callable[[], nn.Module], pool: Pool) -> None:
    """Raises UsageError or InputError for a model that cannot be trained, before any writing."""
    plan = request.plan
    with seeded((plan.seed, 3), request.device):
        model = factory()
    if plan.defence.dp_noise is not None:
        require_private(model)
    normalise = parse_normalisation(request.normalize)
    check_fit(model, normalise, pool.train_images, len(pool.class_names), 2)


def attack_arguments(simulation: Simulation, number: int, client: int) -> list[str]:
    """The `rlu attack` command line for a client's round."""
    request, run = simulation.request, simulation.run
    words = ["rlu", "attack", "--global", str(run.global_file(number))]
    words += ["--local", str(run.client_file(number, client)), "--aux", str(run.auxiliary)]
    if runs_code(request.model):
        words += ["--model", request.model]
        words += [word for text in request.model_args for word in ("--model-arg", text)]
    return words


def _named_defaults(model: str, pool: Pool) -> dict[str, Any]:
    """Arguments that keys and shapes do not determine: activation and image size.

    The size is given only if it is not a listed one.
    """
    architecture = ARCHITECTURES.get(model)
    options = {} if architecture is None else architecture.options
    defaults = {"act": options["act"][0]} if "act" in options else {}
    if "size" in options and pool.image_size not in options["size"]:
        defaults["size"] = pool.image_size
    return defaults


def _factory(
    model: str, arguments: dict[str, Any], classes: int, initial: Checkpoint | None
) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        built = build_model(model, arguments=arguments, classes=classes)
        if initial is not None:
            load_weights(built, initial.state, path=initial.path)
        return built

    return build


def _settings(
    request: Request, arguments: dict[str, Any], pool: Pool, initial: Checkpoint | None
) -> dict[str, Any]:
    """All settings that the results depend on, as JSON values."""
    return {
        **request.plan.settings(),
        "model": request.model,
        "model_args": {name: repr(value) for name, value in sorted(arguments.items())},
        "init": None if initial is None else initial.sha256,
        "normalize": request.normalize,
        "aux_per_class": request.aux_per_class,
        "images": pool.sha256,
        "device": request.device.type,
    }


def _toml_table(request: Request, arguments: dict[str, Any], pool: Pool) -> dict[str, Any]:
    """The settings for `rlu attack`, written beside the checkpoints.

    A user's own model is omitted: no file beside the checkpoints may name code to run.
    """
    named = {"model": request.model, "model_args": arguments}
    local = request.plan.local
    return {
        **({} if runs_code(request.model) else named),
        "lr": request.plan.lr,
        "epochs": request.plan.epochs,
        "batch_size": request.plan.batch_size,
        **local.settings(),
        **({"lambda": local.pull} if request.plan.scheme.takes_lambda else {}),
        **({"history": "."} if request.plan.scheme.remembers else {}),
        "normalize": request.normalize,
        "mode": "train",
        "image_size": pool.image_size,
        "classes": list(pool.class_names),
    }
