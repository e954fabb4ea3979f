"""Settings of a run folder, as a layer among the others, and what the report says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlu_cli.checkpoints import CheckpointPair
from rlu_cli.errors import InputError, printable
from rlu_cli.models import recognise
from rlu_cli.runs import Chosen
from rlu_cli.settings.layers import Layer
from rlu_cli.settings.table import SETTINGS
from rlu_cli.types import Setting

_PASSES = ("samples", "steps_per_epoch")  # what turns epochs of passes into steps


def run_layers(
    chosen: Chosen | None, above: Sequence[Layer], pair: CheckpointPair | None
) -> list[Layer]:
    """What the run folder tells, in order of rank; nothing without one.

    above  layers of higher rank: where they tell how long a pass is, the run's own length is not
           taken
    pair   opened checkpoints, which the run's name of its architecture must fit; None before

    Epochs that are passes over samples of an unknown number are left out, since they would be read
    as batches. Values that no setting can have are left out too: they are another system's.
    """
    if chosen is None:
        return []
    values = {name: given for name, given in chosen.values.items() if _fits(name, given.value)}
    told = any(name in layer.values for layer in above for name in _PASSES)
    if told:
        values = {name: given for name, given in values.items() if name not in _PASSES}
    if chosen.run.full_passes and not told and not any(name in values for name in _PASSES):
        values.pop("epochs", None)
    values |= _model(chosen, pair)
    found = [Layer(values, trusted=False, folder=chosen.run.path)]
    code = chosen.run.code
    if chosen.trust_code and code is not None:
        arguments = {"model_args": Setting(dict(code.arguments), code.source)}
        model = {"model": Setting(code.reference, code.source)}
        found.insert(0, Layer({**model, **(arguments if code.arguments else {})}))
    return found


def run_notes(chosen: Chosen | None) -> tuple[str, ...]:
    """Sentences for the report: the pair that was chosen, and what could not be taken."""
    if chosen is None:
        return ()
    unfit = [name for name, given in chosen.values.items() if not _fits(name, given.value)]
    left = f"settings of the run folder that rlu has no such value for: {', '.join(unfit)}"
    return (chosen.note, *chosen.run.notes, *[left] * bool(unfit))


def run_hints(chosen: Chosen | None, settings: Mapping[str, Setting]) -> list[str]:
    """What the run folder tells of settings that are missing, for the E102 error."""
    if chosen is None or "epochs" in settings or "epochs" not in chosen.values:
        return []
    given = chosen.values["epochs"]
    return [
        f"the run's {printable(given.value, 20)} epochs ({printable(given.source)}) are passes "
        "over the client's samples: give --samples N"
    ]


def naming_code(error: InputError, chosen: Chosen | None) -> InputError:
    """The error that no architecture is known, with the run's own code as the way out."""
    code = None if chosen is None or chosen.trust_code else chosen.run.code
    if error.code != "E215" or code is None:
        return error
    return InputError(
        error.code,
        error.message,
        why=error.why,
        facts=[*error.facts, ("code", printable(code.reference))],
        hint="--trust-code runs that model, which the run folder itself holds; or name "
        "your own with --model",
    )


def _fits(name: str, value: Any) -> bool:
    try:
        SETTINGS[name].parse(value)
    except (KeyError, ValueError):
        return False
    return True


def _model(chosen: Chosen, pair: CheckpointPair | None) -> dict[str, Setting]:
    """The run's name of its architecture, if the weights are those of one so called."""
    given = chosen.run.model
    if given is None or pair is None:
        return {}
    wanted = str(given.value).lower().replace("-", "").replace("_", "")
    names = [one.name for one in recognise(pair.before.state)]
    fitting = [name for name in names if name.replace("-", "") == wanted]
    return {"model": Setting(fitting[0], given.source)} if fitting else {}
