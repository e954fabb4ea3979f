"""Settings of the model and of the images."""

from __future__ import annotations

from rlu_cli.settings import parsers as parse
from rlu_cli.settings.choices import table_names
from rlu_cli.settings.specs import (
    ALL,
    ATTACK,
    AUDITS,
    CLIENT,
    IMAGES,
    LIMITS,
    MODEL,
    SIMULATE,
    SettingSpec,
)

_UPDATE_KINDS = ("auto", "weights", "delta", "minus-delta", "gradient")

INPUT_SETTINGS: dict[str, SettingSpec] = {
    "truth": SettingSpec(
        parse.text,
        give="--truth FILE",
        help="True counts, to score the result: a JSON list, {class: count}, or CSV.",
        metavar="FILE",
        commands=(ATTACK,),
        basic=(ATTACK,),
        path=True,
    ),
    "model": SettingSpec(
        parse.text,
        give="--model NAME (`rlu models` lists them, or path/model.py:Net)",
        help="Architecture (rlu models, or recognised), torchvision:NAME, timm:NAME, hf:DIR or "
        "your own code, path/model.py:Net.",
        helps={
            SIMULATE: "Architecture (rlu models), torchvision:NAME, timm:NAME or your own code, "
            "path/model.py:Net."
        },
        metavar="NAME",
        commands=ALL,
        basic=(SIMULATE,),
        panel=MODEL,
        defaults={SIMULATE: "lenet5"},
        choices=lambda: (
            *table_names("models/table.py", "ARCHITECTURES"),
            *(f"{source}:" for source in table_names("models/sources.py", "SOURCES")),
        ),
    ),
    "model_args": SettingSpec(
        parse.model_arguments,
        give="--model-arg K=V",
        help="Argument of the model, such as act=silu; repeatable.",
        metavar="K=V",
        commands=ALL,
        panel=MODEL,
        option="--model-arg",
        repeats=True,
    ),
    "update_kind": SettingSpec(
        parse.choice(*_UPDATE_KINDS),
        give="--update-kind auto|weights|delta|minus-delta|gradient",
        help="What the client sent: weights, delta (client - global), minus-delta or gradient; "
        "auto: told from the numbers.",
        metavar="KIND",
        commands=(ATTACK,),
        panel=CLIENT,
        default="auto",
        choices=lambda: _UPDATE_KINDS,
    ),
    "layer": SettingSpec(
        parse.text,
        give="--layer NAME",
        help="Output layer. Default: found by name and shape.",
        metavar="NAME",
        panel=MODEL,
    ),
    "classes": SettingSpec(
        parse.class_names,
        give="--classes A,B,… or classes = [...] in rlu.toml",
        help="Names of the classes, in the order of the output layer.",
        metavar="A,B,…",
        panel=IMAGES,
    ),
    "aux_split": SettingSpec(
        parse.text,
        give="--aux-split NAME",
        help="Split of the images to use. Default: test, else val, else all.",
        metavar="NAME",
        panel=IMAGES,
    ),
    "aux_per_class": SettingSpec(
        parse.whole(2, 10**6),
        give="--aux-per-class N",
        help="Auxiliary images of each class, at most.",
        helps={SIMULATE: "Auxiliary images of each class that the server holds."},
        metavar="N",
        commands=ALL,
        panel=IMAGES,
        defaults={SIMULATE: 100},
    ),
    "normalize": SettingSpec(
        parse.normalise,
        give="--normalize NAME or MEAN/STD",
        help="Input scaling: none, half, imagenet, cifar10, cifar100, mnist, aux (from the "
        "images), MEAN/STD; auto: the probable ones.",
        helps={
            SIMULATE: "Input scaling: none, half, imagenet, cifar10, cifar100, mnist or MEAN/STD."
        },
        metavar="NAME",
        commands=ALL,
        panel=IMAGES,
        default="auto",
        defaults={SIMULATE: "half"},
        choices=lambda: (
            "auto",
            "none",
            "half",
            "imagenet",
            "cifar10",
            "cifar100",
            "mnist",
            "aux",
        ),
    ),
    "image_size": SettingSpec(
        parse.whole(1, 4096),
        give="--image-size N",
        help="Side length the images are resized to.",
        metavar="N",
        commands=ALL,
        panel=IMAGES,
        most=512,
    ),
    "device": SettingSpec(
        parse.text,
        give="--device auto|cpu|cuda[:i]",
        help="auto, cpu, cuda or cuda:INDEX.",
        metavar="NAME",
        commands=ALL,
        panel=LIMITS,
        default="auto",
        choices=lambda: ("auto", "cpu", "cuda"),
    ),
    "seed": SettingSpec(
        parse.whole(0, 2**63 - 1),
        give="--seed N",
        help="Seed of every random draw.",
        metavar="N",
        commands=ALL,
        panel=LIMITS,
        default=0,
    ),
    "max_bytes": SettingSpec(
        parse.whole(1, 2**50),
        give="--max-bytes N",
        help="Largest checkpoint to open, in bytes.",
        metavar="N",
        commands=AUDITS,
        panel=LIMITS,
        default=2**34,
        beside=False,
    ),
}
