"""Measure the rows of a table: train each federation and attack every client, once."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from rlu_cli import __version__
from rlu_cli.attacks import UNIFORM
from rlu_cli.audit.attack import attack
from rlu_cli.audit.finding import CaseFinding, MethodFinding
from rlu_cli.case.build import build_case
from rlu_cli.evidence.forward import OutputsCache
from rlu_cli.experiments.cell import Cell, chosen
from rlu_cli.experiments.images import Source, wanted
from rlu_cli.experiments.lab import Lab
from rlu_cli.experiments.setup import Setup
from rlu_cli.experiments.shift import shifted_auxiliary
from rlu_cli.experiments.split import split_error
from rlu_cli.experiments.target import Nothing
from rlu_cli.hashing import file_sha256
from rlu_cli.ledger import Ledger, key_of
from rlu_cli.schemes import step_weights
from rlu_cli.settings.layers import flag_layer
from rlu_cli.simulator.simulation import Simulation

Record = Mapping[str, Any]
RESULTS = "results.jsonl"


@dataclass(frozen=True)
class Row:
    """Measurements of one row.

    cell       the row as defined by its target
    setup      the federation as run at this scale
    images     name of the clients' images
    auxiliary  name of the server's images
    per_class  auxiliary images of each class
    records    one per client, as in the ledger
    """

    cell: Cell
    setup: Setup
    images: str
    auxiliary: str
    per_class: int
    records: tuple[Record, ...]

    def values(self, method: str, metric: str) -> list[float]:
        """A method's metric for every client with a result."""
        found = (record["methods"].get(method, {}) for record in self.records)
        return [one[metric] for one in found if metric in one]

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(self.records[0]["methods"])

    @property
    def floor(self) -> float:
        """Mean iAcc of a uniform guess."""
        return statistics.mean(float(record["floor"]["iacc"]) for record in self.records)

    @property
    def twice(self) -> int:
        """Number of clients that used an image twice: they own fewer than went into the update."""
        return sum(record["own"] < self.setup.used for record in self.records)


@dataclass(frozen=True)
class Left:
    """A row that was not run, and why."""

    name: str
    why: str


def measure_all(lab: Lab, target: str, cells: list[Cell]) -> tuple[list[Row], list[Left]]:
    """Measure the rows of a target that can be run here, and list the others with the reason.

    Raises Nothing when no row can be run.
    """
    picked = chosen(cells, lab.only, lab.scale.rows)
    if not picked:
        names = ", ".join(cell.name for cell in cells)
        raise Nothing(f"no row fits --only {lab.only}; rows: {names}")
    reasons = {cell.name: _reason(lab, target, cell) for cell in picked}
    ready = [cell for cell in picked if reasons[cell.name] is None]
    left = [Left(name, why) for name, why in reasons.items() if why is not None]
    if not ready:
        raise Nothing("; ".join(dict.fromkeys(one.why for one in left)))
    lab.watch.expect(sum(len(lab.clients(lab.scale.fitted(cell.setup))) for cell in ready))
    ledger = Ledger(lab.out / RESULTS)
    return [measure(lab, ledger, target, cell) for cell in ready], left


def _reason(lab: Lab, target: str, cell: Cell) -> str | None:
    """Why a row cannot be run here; None when it can."""
    if (target, cell.setup.dataset, cell.setup.model) in lab.scale.leaves:
        return f"left out at scale {lab.scale.name}"
    for dataset in (cell.setup.dataset, cell.auxiliary):
        if dataset is not None and lab.source(dataset) is None:
            return f"no {wanted(dataset)} in {lab.data}"
    return None


def measure(lab: Lab, ledger: Ledger, target: str, cell: Cell) -> Row:
    """Measure one row; clients in the ledger are neither trained nor attacked again."""
    bench = _Bench(lab, ledger, f"{target} {cell.name}", cell)
    keys = {client: bench.key(client) for client in lab.clients(bench.setup)}
    missing = [client for client, key in keys.items() if ledger.get(key) is None]
    for _ in range(len(keys) - len(missing)):
        lab.watch.done()
    if missing:
        bench.work(missing)
    auxiliary = bench.source if bench.shift is None else bench.shift
    return Row(
        cell=cell,
        setup=bench.setup,
        images=bench.source.label,
        auxiliary=auxiliary.label,
        per_class=bench.per_class,
        records=tuple(record for key in keys.values() if (record := ledger.get(key))),
    )


class _Bench:
    """State shared by the clients of one row."""

    def __init__(self, lab: Lab, ledger: Ledger, name: str, cell: Cell) -> None:
        self.setup = lab.scale.fitted(cell.setup)
        source = lab.source(self.setup.dataset)
        assert source is not None, "rows without images are left out before"
        self.source = source
        self.shift: Source | None = None if cell.auxiliary is None else lab.source(cell.auxiliary)
        held = lab.auxiliary(self.setup)
        self.per_class = held if cell.per_class is None else min(cell.per_class, held)
        self._lab, self._ledger, self._name = lab, ledger, name
        self._shifted = None if self.shift is None else self._write_shifted(self.shift)
        self._flags = {
            "seed": 0,
            "device": str(lab.device),
            "draws": lab.scale.draws,
            "aux_per_class": self.per_class,
        }

    def _write_shifted(self, shift: Source) -> Path:
        classes = self._lab.folder(self.setup, self.source).classes
        return shifted_auxiliary(shift, classes, self._lab.out / "auxiliary" / f"{shift.slug}.npz")

    def key(self, client: int) -> str:
        """Hash of all that the client's results depend on."""
        return key_of(
            {
                "run": dict(self._lab.folder(self.setup, self.source).settings),
                "round": self.setup.rounds,
                "client": client,
                "attack": self._flags,
                "auxiliary": None if self._shifted is None else file_sha256(self._shifted),
                "methods": sorted(self._lab.methods),
                "version": __version__,
            }
        )

    def work(self, clients: Sequence[int]) -> None:
        """Train and attack these clients; store each result at once."""
        stage = f"{self._name}: training"
        simulation = self._lab.train(self.setup, self.source, clients, stage)
        cache = OutputsCache()
        for client in clients:
            self._lab.watch.say(f"{self._name}: attacking client {client}")
            record = self._attack(simulation, client, cache)
            self._ledger.add(self.key(client), record)
            found = record["methods"].get("rlu", {}).get("iacc")
            suffix = "" if found is None else f", RLU iAcc {found:.3f}"
            self._lab.watch.done(f"{self._name}: client {client}{suffix}")

    def _attack(self, simulation: Simulation, client: int, cache: OutputsCache) -> dict[str, Any]:
        run, number = simulation.run, self.setup.rounds - 1
        files = (run.global_file(number), run.client_file(number, client))
        started = time.monotonic()
        case = build_case(*files, str(self._shifted or run.auxiliary), flag_layer(self._flags))
        finding = attack(case, self._lab.methods, cache=cache, progress=self._lab.watch.say)
        truth = json.loads(run.truth_file(number, client).read_text("utf-8"))
        assert finding.floor is not None, "a simulated client has its true labels beside it"
        return {
            "row": self._name,
            "run": run.path.name,
            "client": client,
            "own": len(simulation.federation.own(client)),
            "images": len(simulation.federation.holding.client_labels),
            "reached": (run.noted("pretrain") or {}).get("reached"),
            "floor": asdict(finding.floor),
            "methods": {one.method: _outcome(one) for one in finding.methods},
            "split": _split(finding, truth["per_step"]),
            "seconds": round(time.monotonic() - started, 2),
            "date": date.today().isoformat(),
        }


def _outcome(found: MethodFinding) -> dict[str, Any]:
    if found.recovery is None:
        return {"refused": found.refused}
    scored = {} if found.score is None else asdict(found.score)
    return {**scored, "status": found.recovery.status.name.lower()}


def _split(finding: CaseFinding, per_step: Sequence[Sequence[int]]) -> dict[str, float] | None:
    """The parts of RLU's error; None if it returned no counts."""
    recovery = next((one.recovery for one in finding.methods if one.method == "rlu"), None)
    if recovery is None or recovery.counts is None:
        return None
    weights = step_weights(finding.case.training.recursion)[-1]
    return asdict(split_error(recovery.shares, recovery.counts, weights, per_step))


def is_floor(method: str) -> bool:
    """Whether a method does not use the update: uniform guess or auxiliary shares."""
    return method in (UNIFORM, "prior")
