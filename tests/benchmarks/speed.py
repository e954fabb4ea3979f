"""How long the estimate takes beside the two passes it is made from.

    python tests/benchmarks/speed.py vgg16|resnet50 [--device cpu|cuda] [--repeat N]
    python tests/benchmarks/speed.py RUN [--method auto] …

vgg16     authors' VGG-16, 10 classes, 32×32, 100 images a class, |B| = 64, m = 10
resnet50  ResNet-50, 200 classes, 64×64, 100 images a class, |B| = 256, m = 10, M = 10,000

The images are random pixels and the client is one whose output layer alone moved, by what labels of
a Dirichlet draw would have done to it. RUN is a folder of `rlu simulate`, whose first client is
attacked. Both parts are timed in one run; the ratio is what counts.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from rlu_cli.audit import attack as audit
from rlu_cli.case.build import build_case
from rlu_cli.evidence.assemble import evaluate_ends
from rlu_cli.models import build_model
from rlu_cli.settings.layers import flag_layer

CASES: dict[str, dict[str, Any]] = {
    "vgg16": {"model": "vgg16", "classes": 10, "size": 32, "batch": 64, "alpha": 0.5},
    "resnet50": {"model": "resnet50", "classes": 200, "size": 64, "batch": 256, "alpha": 0.1},
}
STEPS, RATE, PER_CLASS = 10, 0.01, 100
HEADS = {"vgg16": "classifier.6", "resnet50": "fc"}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("case", help=f"{', '.join(CASES)}, or a folder of rlu simulate")
    parser.add_argument("--method", default="rlu")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeat", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if options.case in CASES:
            folder = Path(scratch)
            files = folder / "g.pt", folder / "c.pt", str(folder / "aux.npz")
            arguments = _files(folder, options.case)
        else:
            folder = Path(options.case)
            files = folder / "r000/global.pt", folder / "r000/c0.pt", str(folder / "aux")
            arguments = {}
        for _ in range(options.repeat):
            _measure(files, {**arguments, "device": options.device}, options.method)


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


def _measure(files: tuple[Path, Path, str], flags: dict[str, Any], method: str) -> None:
    """Time reading, the two passes and the rest of one attack."""
    passes: list[float] = []

    def timed(*values: Any) -> Any:
        start = time.perf_counter()
        result = evaluate_ends(*values)
        passes.append(time.perf_counter() - start)
        return result

    start = time.perf_counter()
    case = build_case(*files, flag_layer(flags))
    read = time.perf_counter() - start
    with mock.patch.object(audit, "evaluate_ends", timed):
        start = time.perf_counter()
        finding = audit.attack(case, (method,))
        rest = time.perf_counter() - start - sum(passes)
    found = finding.methods[0]
    assert found.recovery is not None, found.refused
    figures = found.recovery.diagnostics
    counted = [
        f"{figures[name]:,} {name}" for name in ("search_passes", "draws") if name in figures
    ]
    print(
        f"{found.method}: reading {read:.1f} s, two passes {sum(passes):.2f} s, everything else "
        f"{rest:.2f} s: ratio {rest / sum(passes):.3f}, of all to the passes "
        f"{1 + rest / sum(passes):.2f} "
        f"({', '.join([*counted, f'{torch.get_num_threads()} threads', flags['device']])})",
        flush=True,
    )


if __name__ == "__main__":
    main()
