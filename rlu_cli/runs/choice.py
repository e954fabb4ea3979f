"""Which pair of a run is looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlu_cli.errors import InputError, UsageError, printable
from rlu_cli.runs.rounds import natural
from rlu_cli.runs.run import Exchange, Run
from rlu_cli.types import Setting

_SHOWN = 12


@dataclass(frozen=True)
class Chosen:
    """One pair of a run.

    before, after  the checkpoints
    exchange       whose they are
    trust_code     whether the run's own model code may run
    note           which pair it is, in a sentence
    """

    run: Run
    exchange: Exchange
    before: Path
    after: Path
    trust_code: bool
    note: str

    @property
    def values(self) -> Mapping[str, Setting]:
        """Settings of this client and round; those of the round go before those of the run."""
        return {**self.run.values, **self.exchange.values}


def choose(
    run: Run,
    *,
    round_: int | None = None,
    client: str | None = None,
    before: Path | None = None,
    after: Path | None = None,
    trust_code: bool = False,
) -> Chosen:
    """The pair of that round and client; without, the last round, and the last client in it.

    before, after  files that the user named, instead of the run's own

    Raises InputError E232 if there is no such pair, or if the run did not keep the model that the
    client started from.
    """
    if not run.exchanges and after is None:
        raise InputError(
            "E232",
            f"no client's checkpoint in {printable(run.path)} ({run.system})",
            hint="save what each client sends (docs/runs.md), or name the pair with --global and "
            "--local",
        )
    found = _chosen(run, round_, client) if run.exchanges else Exchange(0, "", None, run.path)
    start = before if before is not None else found.before
    if start is None:
        raise InputError(
            "E232",
            f"the model that {_named(run, found)} started from is not in {printable(run.path)}",
            why=run.no_global,
            hint="name it with --global, or save it (docs/runs.md)",
        )
    sent = after if after is not None else found.after
    note = _note(run, found, named=before is not None or after is not None)
    return Chosen(run, found, start, sent, trust_code, note)


def _chosen(run: Run, round_: int | None, client: str | None) -> Exchange:
    rounds = sorted({one.round for one in run.exchanges})
    if round_ is not None and round_ not in rounds:
        raise _absent(run, f"round {round_}", "--round", [str(number) for number in rounds])
    of_client = [one for one in run.exchanges if client is None or _is(one, client)]
    in_round = [one for one in of_client if round_ is None or one.round == round_]
    if not in_round:
        known = {one.client for one in run.exchanges if round_ is None or one.round == round_}
        raise _absent(run, f"client {client}", "--client", sorted(known, key=natural))
    if client is None and round_ is None:  # a pair before half of one
        return next((one for one in reversed(in_round) if one.before), in_round[-1])
    return in_round[-1]


def _is(one: Exchange, client: str) -> bool:
    """By the client's name, or its number where that is c and a number."""
    return client in (one.client, one.client.removeprefix("c"))


def _absent(run: Run, what: str, option: str, known: Sequence[str]) -> UsageError:
    shown = ", ".join(printable(name, 60) for name in known[-_SHOWN:])
    return UsageError(
        "E101",
        f"{printable(what)} is not in {printable(run.path)}",
        hint=f"{option} takes one of {'…, ' * (len(known) > _SHOWN)}{shown}",
    )


def _named(run: Run, one: Exchange) -> str:
    """The client and its round, or the step of a trainer that has neither."""
    if not one.client:
        return f"the file of step {one.round}"
    return f"client {printable(one.client, 60)} of round {one.round}"


def _note(run: Run, one: Exchange, *, named: bool) -> str:
    """Which pair of how many, without a path."""
    others = len(run.exchanges) - 1
    if not run.exchanges or named:
        return f"settings from the run folder ({run.system})"
    choice = "--round and --client choose" if one.client else "--round chooses"
    more = f"; {choice} one of {others} other{'s' * (others > 1)}" if others else ", the only one"
    return f"run folder ({run.system}): {_named(run, one)}{more}"
