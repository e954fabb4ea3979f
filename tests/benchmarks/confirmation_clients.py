"""Clients of the confirmation set: one case each, trained with `rlu simulate` and its settings."""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from confirmation_globals import PATIENCE, complete, model_options, train_line
from confirmation_grid import CLIENTS, IMAGES, ROUNDS, Case, Line
from confirmation_images import TESTED, auxiliary, pool

import rlu_cli
from rlu_cli.errors import RluError
from rlu_cli.simulator.files import write_json


def prepare(cases: list[Case], data: Path, work: Path, limit: float, jobs: int) -> None:
    """Write global models, auxiliary images and clients of all cases, except for what is there.

    limit  seconds of processor time for the training of a line
    jobs   lines at a time
    """
    lines = sorted({case.line for case in cases}, key=lambda one: (PATIENCE[one.model], one.name))
    for line in lines:  # their images first, which several lines share
        pool(data, line.data, line.seed, work / "images")
        for level in IMAGES:
            auxiliary(data, line.data, line.seed, level, work / "images")
    tasks = [(line, [c for c in cases if c.line == line], data, work, limit) for line in lines]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as executor:
        list(executor.map(_prepare_line, reversed(tasks)))  # the longest first


def _prepare_line(task: tuple[Line, list[Case], Path, Path, float]) -> None:
    """One line, and the clients of its cases."""
    line, cases, data, work, limit = task
    torch.set_num_threads(1)
    began = time.perf_counter()
    _line(line, data, work, limit)
    for case in cases:
        if not (work / "cases" / case.name / "case.json").exists():
            _client(case, data, work)
            print(f"{line.name} {time.perf_counter() - began:.0f} s: {case.name}", flush=True)


def _line(line: Line, data: Path, work: Path, limit: float) -> None:
    """Train a line's global models on the clients' images, unless they are there."""
    file = pool(data, line.data, line.seed, work / "images")
    if complete(line, work):
        return
    with np.load(file, allow_pickle=False) as archive:
        own = archive["split"] == "train"
        images, labels = archive["images"][own], archive["labels"][own]
    train_line(line, work, images, labels, limit)


def _client(case: Case, data: Path, work: Path) -> None:
    """Train one client, and describe the case; a client that cannot be trained is recorded."""
    line, folder = case.line, work / "cases" / case.name
    images = auxiliary(data, line.data, line.seed, case.images, work / "images")
    facts = {**case.facts(), "aux": str(images.relative_to(work))}
    facts |= json.loads((work / "globals" / f"{case.global_name}.json").read_text()) | facts
    try:
        _simulate(case, data, work, folder)
    except RluError as error:
        facts["error"] = f"{error.code}: {error.message}"
    else:
        _forget_activation(folder / "rlu.toml", forget=case.recognise)
        _forget_classes(folder / "rlu.toml")
    write_json(folder / "case.json", facts)


def _simulate(case: Case, data: Path, work: Path, folder: Path) -> None:
    reference, arguments = model_options(case.line, work)
    taken: dict[str, Any] = ROUNDS[case.round]
    rlu_cli.simulate(
        folder,
        force=True,
        images=pool(data, case.line.data, case.line.seed, work / "images"),
        init=work / "globals" / f"{case.global_name}.pt",
        model=reference,
        model_args=arguments,
        clients=CLIENTS,
        only_clients=(case.client,),
        aux_per_class=TESTED,
        alpha=case.alpha,
        batch_size=case.batch_size,
        lr=case.lr,
        seed=case.line.seed,
        device="cpu",
        **taken,
    )


def _forget_activation(file: Path, *, forget: bool) -> None:
    """Take the activation out of the settings beside the checkpoints."""
    if forget:
        text = re.sub(r'act = "\w+"(, )?', "", file.read_text("utf-8"))
        file.write_text(text, "utf-8")


def _forget_classes(file: Path) -> None:
    """Take out the class names, cut at 80 characters; the image file has them in this order."""
    text = re.sub(r"(?m)^classes = .*\n", "", file.read_text("utf-8"))
    file.write_text(text, "utf-8")
