"""The accuracy to expect of a method on this model: as data, and for a reader."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from rlu_cli.audit.expected_accuracy import ExpectedAccuracy
from rlu_cli.reports import json_text
from rlu_cli.reports.schema import Calibration, Expected


def expected_part(found: ExpectedAccuracy) -> Expected:
    """The expected accuracy as data."""
    return Expected(
        method=found.method,
        virtual_clients=len(found.each),
        iacc=found.iacc,
        iacc_error=None if math.isnan(found.error) else found.error,
        iacc_measured=found.measured,
        cacc=found.cacc,
        floor_iacc=found.floor,
        present_held=None if found.present is None else list(found.present),
        absent_held=None if found.absent is None else list(found.absent),
        width=found.width,
        upper_estimate=not found.as_learned,
    )


def expected_lines(expected: Expected) -> Iterator[str]:
    """The same in sentences, one a line."""
    error = "" if expected.iacc_error is None else f" ± {expected.iacc_error:.4f}"
    yield (
        f"{expected.method} on virtual clients ({expected.virtual_clients}): expected iAcc "
        f"{expected.iacc:.4f}{error}, cAcc {expected.cacc:.3f}; "
        f"uniform guess {expected.floor_iacc:.4f}"
    )
    yield (
        f"  measured {expected.iacc_measured:.4f} with half of the images each; real clients have "
        "more images, so expect more leakage"
    )
    if expected.present_held is not None and expected.absent_held is not None:
        rates = (("with labels", expected.present_held), ("without", expected.absent_held))
        rates_text = ", ".join(f"{name} {held} of {of}" for name, (held, of) in rates)
        yield f"  classes whose interval holds the truth: {rates_text}"
    if expected.upper_estimate:
        yield (
            "  an upper estimate if the model was trained on its clients' images: give "
            "--train-accuracy or --train-loss"
        )


def render_table(report: Calibration, *, terminal: bool = False) -> str:
    """What `rlu calibrate` prints."""
    return "\n".join(line for one in report.expected for line in expected_lines(one)) + "\n"


FORMATS: dict[str, Callable[..., str]] = {"table": render_table, "json": json_text.render}
