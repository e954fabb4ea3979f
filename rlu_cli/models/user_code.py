"""A model from the user's own code: `pkg.mod:factory` or `path/model.py:Net`.

Only this file runs user code, and only code that the user named. Its output goes to stderr, since
stdout is the report.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from rlu_cli.errors import InputError, RluError, UsageError, printable

RESERVED = ("torchvision", "timm", "hf")
CLASSES = "num_classes"
OWN = "your own: --model pkg.mod:factory or --model path/model.py:Net"


def runs_code(reference: str) -> bool:
    """Whether building `reference` runs code that is not this tool's."""
    source, colon, _ = reference.partition(":")
    return bool(colon) and source not in RESERVED


def build_from_code(
    reference: str, arguments: Mapping[str, Any], classes: int | None = None
) -> nn.Module:
    """Call the class or function that `reference` names.

    `num_classes=classes` is added if the signature has that parameter and `arguments` has not; to a
    factory that takes any argument, if it then takes this one.
    Raises UsageError E101 for a malformed reference, InputError E216 for any failure of the code.
    """
    target, _, attribute = reference.rpartition(":")
    is_file = target.endswith(".py")
    if not attribute.isidentifier() or not (is_file or _is_dotted_name(target)):
        raise UsageError("E101", f'"{printable(reference)}" names no class or function', hint=OWN)
    folder = Path(target).resolve().parent if is_file else Path.cwd()
    with _running(reference, folder):
        module = _open_file(Path(target)) if is_file else _import(target, folder)
        factory = _attribute(module, attribute)
        model = _called(factory, arguments, classes)
    if not isinstance(model, nn.Module):
        raise _failed(
            f"{printable(reference)} returned a {printable(type(model).__name__)}, "
            "not a torch.nn.Module",
            hint="name a class derived from torch.nn.Module, or a function that returns one",
        )
    return _held(model, reference)


_RUN_LATER = ("forward", "train", "state_dict", "load_state_dict", "to")


def _held(model: nn.Module, reference: str) -> nn.Module:
    """The model, of a class of the same name whose methods cannot end the program.

    What is no `Exception`, such as the SystemExit of `sys.exit()`, would pass everyone who handles
    errors: it becomes InputError E216. A class, not wrapped methods, so that copies have it too.
    """
    own = type(model)

    def held(name: str) -> Any:
        def method(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            try:
                return getattr(super(kind, self), name)(*args, **kwargs)
            except (Exception, KeyboardInterrupt):
                raise
            except BaseException as failure:
                raise _ended(reference, failure) from failure

        return method

    methods = {name: held(name) for name in _RUN_LATER}
    kind: Any = type(own.__name__, (own,), {**methods, "__module__": own.__module__})
    try:
        model.__class__ = kind
    except TypeError:  # a class with slots or a metaclass of its own
        return model
    return model


def _ended(reference: str, failure: BaseException) -> InputError:
    place = _place(failure)
    return _failed(
        f"{printable(reference)} ended the program",
        why=printable(f"{type(failure).__name__}: {failure}"),
        facts=[("at", printable(place))] if place else [],
        hint="correct the code: a model raises errors, and does not exit",
    )


@contextmanager
def _running(reference: str, folder: Path) -> Iterator[None]:
    """Let the user's code import from its folder, and raise its exceptions as InputError E216."""
    entry = str(folder)
    # Last, so that no file in the folder shadows an installed module.
    added = entry not in sys.path
    if added:
        sys.path.append(entry)
    try:
        with redirect_stdout(sys.stderr):
            yield
    except (RluError, KeyboardInterrupt):
        raise
    except BaseException as failure:
        place = _place(failure)
        raise _failed(
            f"{printable(reference)} failed",
            why=printable(f"{type(failure).__name__}: {failure}"),
            facts=[("at", printable(place))] if place else [],
            hint="correct the code, or give what it needs with --model-arg name=value",
        ) from failure
    finally:
        if added and entry in sys.path:
            sys.path.remove(entry)


def _open_file(path: Path) -> ModuleType:
    if not path.is_file():
        neighbours = [p.name for p in path.parent.glob("*.py")]
        raise _missing(f"there is no file {printable(path)}", path.name, neighbours)
    spec = importlib.util.spec_from_file_location(f"named_by_user_{path.stem}", path.resolve())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look up the module of a class
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(spec.name, None)
        raise
    return module


def _import(name: str, folder: Path) -> ModuleType:
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as failure:
        absent = failure.name or ""
        if not f"{name}.".startswith(f"{absent}."):
            raise
        package, _, last = absent.rpartition(".")
        places = getattr(sys.modules.get(package), "__path__", [str(folder)])
        modules = [m.name for m in pkgutil.iter_modules(places)]
        raise _missing(f"there is no module {printable(absent)}", last, modules) from failure


def _attribute(module: ModuleType, name: str) -> Any:
    if not hasattr(module, name):
        callables = [n for n, value in vars(module).items() if callable(value)]
        where = printable(module.__file__ or module.__name__)
        raise _missing(f"there is no {printable(name)} in {where}", name, callables)
    factory = getattr(module, name)
    if not callable(factory) or isinstance(factory, nn.Module):
        raise _failed(
            f"{printable(name)} is a {printable(type(factory).__name__)}, "
            "neither a class nor a function",
            hint="name the class, or the function that builds the model",
        )
    return factory


def _called(factory: Any, arguments: Mapping[str, Any], classes: int | None) -> Any:
    given = dict(arguments)
    kind = None if classes is None or CLASSES in given else _takes_classes(factory)
    if kind is None:
        return factory(**given)
    try:
        return factory(**given, **{CLASSES: classes})
    except TypeError:
        if kind is not inspect.Parameter.VAR_KEYWORD:
            raise
    return factory(**given)  # it hands its arguments on to what does not take this one


def _takes_classes(factory: Any) -> Any:
    """Whether a factory takes `num_classes`: the kind of the parameter; None if it does not."""
    try:
        parameters = inspect.signature(factory).parameters
    except (ValueError, TypeError):  # compiled code has no signature to read
        return None
    named = parameters.get(CLASSES)
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    if named is not None:
        return named.kind if named.kind in by_name else None
    kinds = (parameter.kind for parameter in parameters.values())
    return next((kind for kind in kinds if kind is inspect.Parameter.VAR_KEYWORD), None)


def _place(failure: BaseException) -> str:
    """`file:line` of the innermost frame that is neither this tool's nor a library's."""
    if isinstance(failure, SyntaxError) and failure.filename:
        return f"{failure.filename}:{failure.lineno}"
    libraries = tuple({sysconfig.get_path(k) for k in ("stdlib", "purelib", "platlib")})
    frames = [
        frame
        for frame in traceback.extract_tb(failure.__traceback__)
        if frame.filename != __file__ and not frame.filename.startswith("<")
    ]
    users = [f for f in frames if not f.filename.startswith(libraries)]
    innermost = (users or frames)[-1:]
    return "".join(f"{frame.filename}:{frame.lineno}" for frame in innermost)


def _is_dotted_name(target: str) -> bool:
    return all(part.isidentifier() for part in target.split("."))


def _missing(message: str, name: str, others: Iterable[str]) -> InputError:
    near = get_close_matches(name, others)
    guess = f"did you mean {printable(' or '.join(near))}? " if near else ""
    return _failed(message, hint=guess + OWN)


def _failed(
    message: str, *, hint: str, why: str = "", facts: list[tuple[str, str]] | None = None
) -> InputError:
    return InputError("E216", message, hint=hint, why=why, facts=facts or [])
