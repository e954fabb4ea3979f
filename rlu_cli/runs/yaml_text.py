"""YAML without objects and without bombs, by PyYAML where that is installed."""

from __future__ import annotations

from functools import cache
from typing import Any

from rlu_cli.errors import UsageError

_MAX_ALIASES = 16  # merges of merges grow as a power of their number


def parse_yaml(text: str) -> Any:
    """The values in a YAML text; those with a tag of their own, such as a Python object, are None.

    Raises ValueError for what is no YAML, RecursionError for deep nesting, UsageError E107 where
    PyYAML is missing.
    """
    yaml, loader = _loader()
    try:
        return yaml.load(text, Loader=loader)
    except yaml.YAMLError as problem:
        raise ValueError(str(problem).replace("\n", " ")) from None
    except (TypeError, AttributeError, LookupError, OverflowError) as problem:  # of odd scalars
        raise ValueError(f"{type(problem).__name__}: {problem}") from None


@cache
def _loader() -> tuple[Any, Any]:
    """PyYAML, and its safe loader with fewer freedoms."""
    try:
        import yaml
    except ImportError:
        raise UsageError(
            "E107",
            "the run's settings are in YAML, and PyYAML is missing",
            hint='pip install "rlu-cli[yaml]", or give the settings as options',
        ) from None

    base: Any = yaml.SafeLoader

    def compose_node(self: Any, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            self.aliases = getattr(self, "aliases", 0) + 1
            if self.aliases > _MAX_ALIASES:
                raise ValueError(f"more than {_MAX_ALIASES} aliases")
        return base.compose_node(self, parent, index)

    loader: Any = type("Loader", (base,), {"compose_node": compose_node})
    loader.add_multi_constructor("", lambda loader, suffix, node: None)
    return yaml, loader
