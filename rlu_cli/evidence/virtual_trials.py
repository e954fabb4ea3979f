"""Virtual trials: virtual clients with known labels, each observed as the client under study is.

On them, methods are compared on the very model at hand. Half of the auxiliary images trains the
client, the other half observes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor, nn

from rlu_cli.attacks.observations import INTERPOLATION, TILT
from rlu_cli.case.build import Case
from rlu_cli.case.round_history import RoundHistory
from rlu_cli.errors import InputError
from rlu_cli.evidence.assemble import assemble, evaluate_ends
from rlu_cli.evidence.forward import ForwardConfig, OutputsCache
from rlu_cli.evidence.interpolation import evaluate_along_interpolation
from rlu_cli.evidence.virtual_population import (
    VirtualClient,
    draw_near,
    halves,
    train_clients,
)
from rlu_cli.types import Auxiliary, Evidence, VirtualTrial


def trials(
    model: nn.Module,
    case: Case,
    config: ForwardConfig,
    shares: Tensor,
    count: int,
    *,
    progress: Callable[[str], None] = lambda text: None,
) -> tuple[VirtualTrial, ...]:
    """Train and observe virtual clients with label shares drawn around an estimate.

    Half of them trains on the first half of the images, for the others it is the reverse. None if
    the images do not suffice or a virtual client diverges.

    shares    (N,) the estimate
    count     of virtual clients
    progress  progress callback
    """
    try:
        one, other = halves(case.auxiliary, config.seed)
        drawn = draw_near(shares, count, config.seed)
        found: list[VirtualTrial] = []
        cache = OutputsCache()
        for turn, (own, server) in enumerate(((one, other), (other, one))):
            clients = train_clients(
                model,
                case.pair.before,
                own,
                case.training,
                replace(config, seed=config.seed + 1 + turn),
                drawn[turn::2],
                progress=progress,
            )
            for client in clients:
                evidence = _observed(model, case, config, server, client, cache)
                found.append(VirtualTrial(evidence, client.shares))
    except InputError:
        return ()
    return tuple(found)


def _observed(
    model: nn.Module,
    case: Case,
    config: ForwardConfig,
    server: Auxiliary,
    client: VirtualClient,
    cache: OutputsCache,
) -> Evidence:
    """The evidence of one virtual client, from images it was not trained on."""
    pair = replace(case.pair, after=client.checkpoint)
    virtual = replace(
        case, pair=pair, auxiliary=server, truth=None, history=RoundHistory(), velocity=None
    )
    ends = evaluate_ends(virtual, model, config, cache, "virtual trial")
    evidence = assemble(virtual, None, ends)
    seen = evaluate_along_interpolation(
        model, pair, server, config, steps=evidence.steps, ends=ends
    )
    return evidence.with_observed(INTERPOLATION, seen).with_observed(TILT, None)
