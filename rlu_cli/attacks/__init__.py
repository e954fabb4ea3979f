"""Label-recovery attacks, one file per paper; each maps `Evidence` to a `Recovery`."""

from __future__ import annotations

from rlu_cli.attacks import (
    bayes,
    dimitrov,
    ebi,
    emulation,
    floors,
    fusion,
    gradinversion,
    idlg,
    irlg,
    llbg,
    llg,
    path,
    pooled,
    ramakrishna_dan,
    rlg,
    rlu,
    zlg,
)
from rlu_cli.attacks.auto import AUTO, Choice, method_for
from rlu_cli.attacks.method import COUNTS, SET, Attack, Method, concerns

UNIFORM = "uniform"  # baseline of every other method
ATTACKS: dict[str, Method] = {
    "rlu": rlu.METHOD,
    "path": path.METHOD,
    "fusion": fusion.METHOD,
    "pooled": pooled.METHOD,
    "bayes": bayes.METHOD,
    "emulation": emulation.METHOD,
    "idlg": idlg.METHOD,
    "gi": gradinversion.METHOD,
    "rlg": rlg.METHOD,
    "llg": llg.LLG,
    "llg-star": llg.LLG_STAR,
    "llg+": llg.LLG_PLUS,
    "zlg": zlg.ZLG,
    "zlg+": zlg.ZLG_PLUS,
    "dimitrov": dimitrov.METHOD,
    "ebi": ebi.METHOD,
    "llbg": llbg.METHOD,
    "irlg": irlg.METHOD,
    "ramakrishna-dan": ramakrishna_dan.CLOSED_FORM,
    "ramakrishna-dan-virtual": ramakrishna_dan.VIRTUAL_CLIENTS,
    "uniform": floors.UNIFORM,
    "prior": floors.PRIOR,
}

__all__ = [
    "ATTACKS",
    "AUTO",
    "COUNTS",
    "SET",
    "UNIFORM",
    "Attack",
    "Choice",
    "Method",
    "concerns",
    "method_for",
]
