"""One pair of checkpoints → what the client's update reveals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.random import fork_rng

from rlu_cli.api.arguments import Images, Weights, arguments, images, weights
from rlu_cli.api.finding import Finding
from rlu_cli.attacks import ATTACKS
from rlu_cli.audit.attack import attack as attack_case
from rlu_cli.audit.diagnostics import no_expected_accuracy
from rlu_cli.audit.expected_accuracy import ExpectedAccuracy, estimate_accuracy_near
from rlu_cli.audit.finding import CaseFinding
from rlu_cli.audit.joint_estimate import joint_estimate
from rlu_cli.audit.warning import FindingWarning
from rlu_cli.case.build import Case, build_case
from rlu_cli.errors import RluError
from rlu_cli.settings.specs import ATTACK
from rlu_cli.types import ProgressCallback

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from rlu_cli.api.settings import AttackSettings


def attack(
    global_path: Weights,
    local_path: Weights,
    aux: Images,
    *,
    strict: bool = False,
    progress: ProgressCallback = lambda text: None,
    **settings: Unpack[AttackSettings],
) -> Finding:
    """Recover how many examples of each class a client trained on.

    global_path  checkpoint the client started from: a file or a state dict
    local_path   checkpoint the client sent back: a file or a state dict
    aux          labelled images: a folder, a file, or "none" for an untrained model
    strict       treat an unreadable image as an error
    progress     called with a sentence on what is going on
    settings     as the options of `rlu attack`, with underscores; what is left out is looked up in
                 RLU_* variables, rlu.toml files, the run folder and the checkpoints

    Raises RluError (UsageError, InputError) with the codes of docs/errors.md.
    """
    pair = weights(global_path), weights(local_path)
    with fork_rng(devices=[]):  # building a model draws its weights: not from the caller's state
        case = build_case(*pair, images(aux), arguments(settings, ATTACK), strict=strict)
        return attack_built(case, progress)


def attack_built(case: Case, progress: ProgressCallback) -> Finding:
    """The same for a case that is built: every method, the expected accuracy, the joint estimate.

    A part beside the result that cannot be made becomes a warning; the result is not lost.
    """
    found = attack_case(case, case.value("method"), progress=progress)
    expected, extra = _expected(found, progress)
    return Finding(found, joint_estimate(found, progress), expected, extra)


def _expected(
    found: CaseFinding, progress: ProgressCallback
) -> tuple[ExpectedAccuracy | None, tuple[FindingWarning, ...]]:
    """Expected accuracy from virtual clients; None if not requested or if the method has its own"""
    count = found.case.value("virtual_clients")
    if not count or ATTACKS[found.first.method].built_of_virtual_clients:
        return None, ()
    try:
        return estimate_accuracy_near(found, count, progress), ()
    except RluError as problem:
        return None, (no_expected_accuracy(problem),)
