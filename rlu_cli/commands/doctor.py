"""`rlu doctor`: versions, devices and extras, for a bug report or a first look."""

from __future__ import annotations

import typer

REQUIRED = ("torch", "numpy", "scipy", "safetensors", "pydantic", "typer", "rich", "Pillow")
EXTRAS: dict[str, tuple[str, ...]] = {
    "plot": ("matplotlib",),
    "dp": ("opacus",),
    "yaml": ("PyYAML",),
    "test": ("pytest", "hypothesis"),
    "lint": ("ruff", "mypy"),
}


def doctor() -> None:
    """Show versions, devices and installed extras."""
    import platform

    import torch

    from rlu_cli import __version__

    typer.echo(f"rlu {__version__}, Python {platform.python_version()}, {platform.platform()}")
    for name in REQUIRED:
        typer.echo(f"  {name:<14}{_version(name)}")
    typer.echo(f"devices: cpu ({torch.get_num_threads()} threads)")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            typer.echo(f"  cuda:{index} {torch.cuda.get_device_name(index)}")
    else:
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "a CPU build"
        typer.echo(f"  no CUDA device (this torch is {built})")
    for extra, names in EXTRAS.items():
        missing = [name for name in names if _version(name) == "missing"]
        state = f"missing {', '.join(missing)}: pip install 'rlu-cli[{extra}]'" if missing else "ok"
        typer.echo(f"extra {extra}: {state}")


def _version(name: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"
