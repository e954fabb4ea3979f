"""How long the estimate takes beside the two passes it is made from.

    python tests/benchmarks/speed.py vgg16|resnet50 [--device cpu|cuda] [--repeat N]

vgg16     authors' VGG-16, 10 classes, 32×32, 100 images a class, |B| = 64, m = 10
resnet50  ResNet-50, 200 classes, 64×64, 100 images a class, |B| = 256, m = 10, M = 10,000

The images are random pixels and the client is one whose output layer alone moved, by what labels of
a Dirichlet draw would have done to it. Both parts are timed in one run; the ratio is what counts.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlu_cli import observe, pipeline
from rlu_cli.cases import build_case
from rlu_cli.models import build_model

CASES: dict[str, dict[str, Any]] = {
    "vgg16": {"model": "vgg16", "classes": 10, "size": 32, "batch": 64, "alpha": 0.5},
    "resnet50": {"model": "resnet50", "classes": 200, "size": 64, "batch": 256, "alpha": 0.1},
}
STEPS, RATE, PER_CLASS = 10, 0.01, 100
HEADS = {"vgg16": "classifier.6", "resnet50": "fc"}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeat", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        arguments = _files(Path(folder), options.case)
        for _ in range(options.repeat):
            _measure(Path(folder), arguments, options.device)


def _files(folder: Path, name: str) -> dict[str, Any]:
    """Write two checkpoints and an .npz of random pixels; the settings that go with them."""
    case = CASES[name]
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    model = build_model(case["model"], classes=case["classes"])
    state = model.state_dict()
    torch.save(state, folder / "g.pt")
    shares = torch.tensor(rng.dirichlet([case["alpha"]] * case["classes"]), dtype=torch.float32)
    step = RATE * STEPS * (shares - 1 / case["classes"])
    weight, bias = (state[f"{HEADS[name]}.{part}"] for part in ("weight", "bias"))
    embedding = torch.rand(weight.shape[1])
    moved = {
        **state,
        f"{HEADS[name]}.weight": weight + torch.outer(step, embedding),
        f"{HEADS[name]}.bias": bias + step,
    }
    torch.save(moved, folder / "c.pt")
    labels = np.repeat(np.arange(case["classes"]), PER_CLASS)
    shape = (len(labels), case["size"], case["size"], 3)
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    np.savez(folder / "aux.npz", images=images, labels=labels)
    return {
        "model": case["model"],
        "model_args": ["act=relu"],
        "lr": RATE,
        "epochs": STEPS,
        "batch_size": case["batch"],
        "normalize": "half",
        "search": "printed",  # always T = 10 replays of the round
    }


def _measure(folder: Path, arguments: dict[str, Any], device: str) -> None:
    """Time reading, the two passes and the rest of one attack."""
    passes = []
    plain = observe.view_pair

    def timed(*values: Any) -> Any:
        start = time.perf_counter()
        result = plain(*values)
        passes.append(time.perf_counter() - start)
        return result

    start = time.perf_counter()
    flags = {**arguments, "device": device}
    case = build_case(folder / "g.pt", folder / "c.pt", str(folder / "aux.npz"), flags)
    read = time.perf_counter() - start
    pipeline.view_pair = timed
    start = time.perf_counter()
    finding = pipeline.attack(case)
    rest = time.perf_counter() - start - sum(passes)
    pipeline.view_pair = plain
    figures = finding.methods[0].recovery.diagnostics
    print(
        f"reading {read:.1f} s, two passes {sum(passes):.1f} s, everything else {rest:.2f} s: "
        f"ratio {rest / sum(passes):.3f} ({figures['search_passes']} search passes, "
        f"{figures['draws']:,} draws, {torch.get_num_threads()} threads, {device})",
        flush=True,
    )


if __name__ == "__main__":
    main()
