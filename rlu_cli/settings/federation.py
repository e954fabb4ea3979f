"""Settings of a simulated federation."""

from __future__ import annotations

from rlu_cli.settings import parsers as parse
from rlu_cli.settings.specs import BEFORE, DEFENCE, FEDERATION, SIMULATE, SettingSpec

_KEEP, _NOISE_ON = ("all", "heads"), ("batch", "sample")
_MOST = 10**6

FEDERATION_SETTINGS: dict[str, SettingSpec] = {
    "images": SettingSpec(
        parse.text,
        give="--images PATH",
        help="digits (drawn here, no download), or a folder or file of a known layout.",
        metavar="PATH",
        commands=(SIMULATE,),
        basic=(SIMULATE,),
        default="digits",
        choices=lambda: ("digits",),
    ),
    "clients": SettingSpec(
        parse.whole(1, _MOST),
        give="--clients N",
        help="Clients that the images are divided among.",
        metavar="N",
        commands=(SIMULATE,),
        basic=(SIMULATE,),
        default=10,
    ),
    "rounds": SettingSpec(
        parse.whole(1, _MOST),
        give="--rounds R",
        help="Rounds; the last one is the one to attack (default: 1).",
        metavar="R",
        commands=(SIMULATE,),
        panel=FEDERATION,
    ),
    "sample_clients": SettingSpec(
        parse.whole(1, _MOST),
        give="--sample-clients C",
        help="Clients drawn to take part in each round. Default: all.",
        metavar="C",
        commands=(SIMULATE,),
        panel=FEDERATION,
    ),
    "only_clients": SettingSpec(
        parse.client_numbers,
        give="--only-clients I,J",
        help="Train only these clients in the last round.",
        metavar="I,J",
        commands=(SIMULATE,),
        panel=FEDERATION,
    ),
    "keep": SettingSpec(
        parse.choice(*_KEEP),
        give="--keep all|heads",
        help="heads: keep only the output layers of past rounds.",
        metavar="WHAT",
        commands=(SIMULATE,),
        panel=FEDERATION,
        default="all",
        choices=lambda: _KEEP,
    ),
    "init": SettingSpec(
        parse.text,
        give="--init FILE",
        help="Checkpoint to start from instead of random weights.",
        metavar="FILE",
        commands=(SIMULATE,),
        panel=BEFORE,
        path=True,
    ),
    "pretrain": SettingSpec(
        parse.between(0, 1),
        give="--pretrain ACC",
        help="First train centrally on all clients' images to this training accuracy.",
        metavar="ACC",
        commands=(SIMULATE,),
        panel=BEFORE,
    ),
    "train_to": SettingSpec(
        parse.between(0, 1),
        give="--train-to ACC",
        help="Run rounds until the global model reaches this training accuracy, then one more; "
        "--rounds limits them (200).",
        metavar="ACC",
        commands=(SIMULATE,),
        panel=BEFORE,
    ),
    "noise": SettingSpec(
        parse.between(0, 1e12),
        give="--noise S",
        help="Standard deviation of Gaussian noise on gradients.",
        metavar="S",
        commands=(SIMULATE,),
        panel=DEFENCE,
    ),
    "noise_on": SettingSpec(
        parse.choice(*_NOISE_ON),
        give="--noise-on batch|sample",
        help="Add the noise to a step's mean gradient, or to each sample's (default: batch).",
        metavar="WHAT",
        commands=(SIMULATE,),
        panel=DEFENCE,
        choices=lambda: _NOISE_ON,
    ),
    "topk": SettingSpec(
        parse.between(0, 1),
        give="--topk F",
        help="Share of the update that is sent, largest entries first.",
        metavar="F",
        commands=(SIMULATE,),
        panel=DEFENCE,
    ),
    "dp_noise": SettingSpec(
        parse.positive,
        give="--dp-noise SIGMA",
        help="Noise multiplier of DP-SGD (needs opacus).",
        metavar="SIGMA",
        commands=(SIMULATE,),
        panel=DEFENCE,
    ),
    "dp_clip": SettingSpec(
        parse.positive,
        give="--dp-clip C",
        help="Per-sample gradient norm that DP-SGD clips to.",
        metavar="C",
        commands=(SIMULATE,),
        panel=DEFENCE,
    ),
}
