"""Settings of the estimate and of the report."""

from __future__ import annotations

from rlu_cli.settings import parsers as parse
from rlu_cli.settings.choices import table_names
from rlu_cli.settings.specs import ATTACK, AUDITS, CALIBRATE, ESTIMATE, REPORT, SettingSpec

EFFORTS = ("auto", "quick", "standard", "thorough")


def _methods() -> tuple[str, ...]:
    return ("auto", parse.ALL_METHODS, *table_names("attacks/__init__.py", "ATTACKS"))


ESTIMATE_SETTINGS: dict[str, SettingSpec] = {
    "method": SettingSpec(
        parse.methods,
        give="--method NAME (`rlu methods` lists them)",
        help="Method (rlu methods); auto: the most accurate one for this model; all: every one "
        "that trains nothing. Repeatable.",
        metavar="NAME",
        basic=AUDITS,
        default=("auto",),
        repeats=True,
        choices=_methods,
        beside=False,
    ),
    "train_accuracy": SettingSpec(
        parse.between(0, 1),
        give="--train-accuracy A, of the global model",
        help="Accuracy of the global model on its training images, if known; for fusion and "
        "virtual clients.",
        metavar="A",
        panel=ESTIMATE,
    ),
    "train_loss": SettingSpec(
        parse.positive,
        give="--train-loss L, of the global model",
        help="Its loss on its training images, if the accuracy is not known.",
        metavar="L",
        panel=ESTIMATE,
    ),
    "joint": SettingSpec(
        parse.switch,
        give="--joint/--no-joint",
        help="Whether to attack earlier rounds too, for one estimate over all. "
        "Default: with --history, unless the scheme has memory.",
        commands=(ATTACK,),
        panel=ESTIMATE,
        option="--joint/--no-joint",
    ),
    "virtual_clients": SettingSpec(
        parse.whole(0, 10_000),
        give="--virtual-clients R",
        help="Virtual clients that estimate the accuracy to expect; emulation trains 64, or three "
        "a class.",
        helps={CALIBRATE: "Virtual clients to train on the auxiliary images."},
        metavar="R",
        panel=ESTIMATE,
        default=0,
        defaults={CALIBRATE: 16},
        beside=False,
    ),
    "effort": SettingSpec(
        parse.choice(*EFFORTS),
        give="--effort NAME",
        help="Virtual clients that compare the methods: quick none, thorough most; auto: some, if "
        "the answer is not reliable.",
        metavar="NAME",
        commands=(ATTACK,),
        panel=ESTIMATE,
        default="auto",
        choices=lambda: EFFORTS,
        beside=False,
    ),
    "alpha": SettingSpec(
        parse.between(1e-3, 1e6),
        give="--alpha A",
        help="Dirichlet concentration of the clients' labels: small means few classes a client.",
        metavar="A",
        commands=(CALIBRATE, "simulate"),
        basic=("simulate",),
        panel=ESTIMATE,
        default=0.5,
    ),
    "prior": SettingSpec(
        parse.concentrations,
        give="--prior ALPHA or LOW:HIGH",
        help="Dirichlet concentration of the clients' labels, if known: small means few classes a "
        "client. Default: any from 0.02 to 100.",
        metavar="ALPHA",
        panel=ESTIMATE,
    ),
    "confidence": SettingSpec(
        parse.between(0.5, 0.999),
        give="--confidence P",
        help="Confidence level of the intervals.",
        metavar="P",
        panel=ESTIMATE,
        default=0.9,
    ),
    "draws": SettingSpec(
        parse.whole(1, 10**8),
        give="--draws M",
        help="Monte-Carlo draws for each class.",
        metavar="M",
        panel=ESTIMATE,
        default=10_000,
        most=10_000,
    ),
    "search": SettingSpec(
        parse.choice("checked", "printed", "none"),
        give="--search NAME",
        help="Posterior search of rlu: checked keeps moves that help, printed is the paper's.",
        metavar="NAME",
        panel=ESTIMATE,
        default="checked",
        choices=lambda: ("checked", "printed", "none"),
    ),
    "iterations": SettingSpec(
        parse.whole(0, 10_000),
        give="--iterations T",
        help="Maximum search passes. Default: printed 10, checked until no move helps.",
        metavar="T",
        panel=ESTIMATE,
        most=100,
    ),
    "output": SettingSpec(
        parse.text,
        give="--output FILE",
        help="File to write the report to, readable by you alone (mode 0600).",
        metavar="FILE",
        panel=REPORT,
        path=True,
        beside=False,
    ),
}
