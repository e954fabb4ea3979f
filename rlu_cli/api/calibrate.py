"""A global model → the accuracy to expect of attacks on its clients, without any client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.random import fork_rng

from rlu_cli.api.arguments import Images, Weights, arguments, images, weights
from rlu_cli.api.finding import Calibration
from rlu_cli.audit.expected_accuracy import estimate_accuracy
from rlu_cli.case.build import Case, build_study
from rlu_cli.errors import UsageError
from rlu_cli.evidence.forward import choose_device
from rlu_cli.evidence.virtual_population import draw_shares
from rlu_cli.settings.specs import CALIBRATE
from rlu_cli.types import ProgressCallback

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from rlu_cli.api.settings import CalibrateSettings

_FEWEST = 2  # virtual clients: one for each half of the images


def calibrate(
    global_path: Weights,
    aux: Images,
    *,
    progress: ProgressCallback = lambda text: None,
    **settings: Unpack[CalibrateSettings],
) -> Calibration:
    """Estimate how many of a client's labels an update of this model reveals.

    Virtual clients with known labels train from the checkpoint on one half of the auxiliary images
    and are attacked with the other half, and the other way round.

    global_path  checkpoint that clients start from: a file or a state dict
    aux          labelled images, four of each class or more
    progress     called with a sentence on what is going on
    settings     as the options of `rlu calibrate`, with underscores

    Raises RluError (UsageError, InputError) with the codes of docs/errors.md.
    """
    given = arguments(settings, CALIBRATE)
    with fork_rng(devices=[]):  # building a model draws its weights: not from the caller's state
        case = build_study(weights(global_path), images(aux), given)
        return calibrate_built(case, progress)


def calibrate_built(case: Case, progress: ProgressCallback) -> Calibration:
    """The same for a case that is built."""
    count, classes = case.value("virtual_clients"), case.auxiliary.classes
    if count < _FEWEST:
        raise UsageError(
            "E101",
            f"invalid value for --virtual-clients: {count}",
            hint=f"a calibration takes {_FEWEST} virtual clients or more",
        )
    shares = draw_shares(classes, case.value("alpha"), count, case.value("seed"))
    found = tuple(
        estimate_accuracy(case, method, shares, progress) for method in case.value("method")
    )
    return Calibration(case, found, choose_device(case.value("device")))
