"""The shape of the package: imports run down only, and who may print, exit or choose a device."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import rlu_cli

ROOT = Path(rlu_cli.__file__).parent


def _map() -> tuple[tuple[str, ...], ...]:
    """Rows of the package map in `rlu_cli.__doc__`, from the top down.

    A module imports from lower rows, and a package from itself. Modules in one row never import
    one another; the row of the families (attacks, …) is why that rule is there.
    """
    rows = re.findall(r"^    (\S+(?: \S+)*?)  +\S.*$", rlu_cli.__doc__ or "", re.MULTILINE)
    return tuple(tuple(row.split()) for row in rows)


LAYERS = _map()
FAMILIES = ("attacks", "schemes", "checkpoints", "models", "datasets")
RANK = {name: rank for rank, row in enumerate(LAYERS) for name in row}

# A type that stands in annotations alone: nothing is imported when the module runs.
NAMES_ONLY = {("types", "numerics")}

SHOWS = {"__main__", "cli", "commands"}
CHOOSES_DEVICE = {"evidence", "commands"}
TOUCHES_DISK = {
    *("experiments", "checkpoints", "datasets", "models", "simulator", "commands"),
    *("case", "settings", "hashing", "ledger", "regular_files", "runs"),
    "cli",  # the null device, when a pipe has gone
}
LIGHT = ("cli", "errors", "commands")
HEAVY = {"torch", "numpy", "scipy", "pydantic", "PIL", "safetensors", "rich", "rlu_cli.models"}


def _modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def _part(path: Path) -> str:
    """The top-level module or package that a file belongs to; "" for the package itself."""
    first = path.relative_to(ROOT).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def _place(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT.parent)}:{getattr(node, 'lineno', 1)}"


def _imported(node: ast.AST) -> list[str]:
    """Dotted names that an import statement asks for."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        module = node.module or ""
        return [module, *(f"{module}.{alias.name}" for alias in node.names)]
    return []


def _own_imports(path: Path) -> Iterator[tuple[ast.AST, str]]:
    """Every other part of the package that a file imports, at any depth of the file."""
    for node in ast.walk(_tree(path)):
        for name in _imported(node):
            package, _, rest = name.partition(".")
            part = rest.partition(".")[0]
            if package == "rlu_cli" and part in RANK and part != _part(path):
                yield node, part


def test_every_module_has_a_place() -> None:
    """A new file or folder gets a row in the map, at the height at which it is used."""
    found = {_part(path) for path in _modules()} - {""}
    listed = [name for row in LAYERS for name in row]
    assert sorted(listed) == sorted(found)


def test_every_folder_is_a_package_with_its_purpose() -> None:
    folders = {path.parent for path in _modules()}
    assert not [f.name for f in folders if ast.get_docstring(_tree(f / "__init__.py")) is None]


def test_imports_run_down_only() -> None:
    wrong = [
        f"{_place(path, node)}: {_part(path)} imports {part}"
        for path in _modules()
        if _part(path)
        for node, part in _own_imports(path)
        if RANK[part] <= RANK[_part(path)]
        if (_part(path), part) not in NAMES_ONLY
    ]
    assert not wrong, "\n".join(wrong)


def test_types_named_in_annotations_are_not_imported() -> None:
    for importer, named in NAMES_ONLY:
        reached = _reached(ROOT / f"{importer}.py")
        assert not [name for name in reached if f"{name}.".startswith(f"rlu_cli.{named}.")]


def test_families_do_not_know_one_another() -> None:
    assert len({RANK[name] for name in FAMILIES}) == 1
    for path in _modules():
        if _part(path) in FAMILIES:
            assert not [part for _, part in _own_imports(path) if part in FAMILIES], path


def test_the_package_itself_imports_nothing_of_its_own() -> None:
    """`import rlu_cli` is fast: the API's names are imported when they are first used."""
    reached = _reached(ROOT / "__init__.py")
    assert {name.partition(".")[0] for name in reached} <= {"__future__", "typing"}


def _dotted(node: ast.AST) -> str:
    """`a.b.c` of a name or a chain of attributes; unknown links are `?`."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return "?"


def _calls(path: Path) -> Iterator[tuple[ast.AST, str]]:
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Call):
            yield node, _dotted(node.func)
        elif isinstance(node, ast.Raise) and node.exc is not None:
            raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            yield node, _dotted(raised)


PRINTS_OR_EXITS = {
    "print",
    "exit",
    "quit",
    "SystemExit",
    "KeyboardInterrupt",
    "sys.exit",
    "os._exit",
    "sys.stdout.write",
    "sys.stderr.write",
}


def test_only_commands_print_or_exit() -> None:
    wrong = []
    for path in _modules():
        if _part(path) in SHOWS:
            continue
        wrong += [f"{_place(path, n)}: {c}" for n, c in _calls(path) if c in PRINTS_OR_EXITS]
        wrong += [
            f"{_place(path, node)}: imports typer"
            for node in ast.walk(_tree(path))
            if any(name.partition(".")[0] in ("typer", "click") for name in _imported(node))
        ]
    assert not wrong, "\n".join(wrong)


def test_nothing_imports_click() -> None:
    for path in _modules():
        for node in ast.walk(_tree(path)):
            assert "click" not in {name.partition(".")[0] for name in _imported(node)}, path


def test_only_evidence_and_commands_choose_a_device() -> None:
    choosing = {"torch.cuda.is_available", "torch.cuda.device_count", "torch.cuda.set_device"}
    wrong = [
        f"{_place(path, node)}: {call}"
        for path in _modules()
        if _part(path) not in CHOOSES_DEVICE
        for node, call in _calls(path)
        if call in choosing or call.endswith(".cuda")
    ]
    assert not wrong, "\n".join(wrong)


DISK_CALLS = (
    "read_text",
    "read_bytes",
    "write_text",
    "write_bytes",
    "iterdir",
    "rglob",
    "mkdir",
    "unlink",
    "rename",
    "is_file",
    "is_dir",
)


def test_only_some_touch_the_disk() -> None:
    wrong = [
        f"{_place(path, node)}: {call}"
        for path in _modules()
        if _part(path) not in TOUCHES_DISK
        for node, call in _calls(path)
        if call in ("open", "os.open", "io.open") or call.rpartition(".")[2] in DISK_CALLS
    ]
    assert not wrong, "\n".join(wrong)


def _at_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run on import, without those that only a type checker sees."""
    for node in body:
        if isinstance(node, ast.If) and _dotted(node.test).endswith("TYPE_CHECKING"):
            yield from _at_import(node.orelse)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
            for field in ("body", "orelse", "finalbody"):
                yield from _at_import(getattr(node, field, []))


def _file(name: str) -> Path | None:
    """The file of a dotted name of this package."""
    base = ROOT.parent.joinpath(*name.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _reached(start: Path) -> dict[str, str]:
    """Every module imported, directly or not, when `start` is, with the place that asks for it."""
    found: dict[str, str] = {}
    waiting = [start]
    while waiting:
        path = waiting.pop()
        for node in _at_import(_tree(path).body):
            for name in _imported(node):
                if name in found:
                    continue
                found[name] = _place(path, node)
                own = _file(name) if name.startswith("rlu_cli") else None
                waiting += [own] if own else []
    return found


@pytest.mark.parametrize(
    "path",
    [p for p in _modules() if _part(p) in LIGHT],
    ids=lambda p: p.relative_to(ROOT).as_posix(),
)
def test_the_command_line_answers_without_loading_torch(path: Path) -> None:
    """`--help` and `--version` in under 0.3 s: heavy packages are imported inside commands."""
    heavy = {
        name: place
        for name, place in _reached(path).items()
        if name in HEAVY or name.partition(".")[0] in HEAVY
    }
    assert not heavy


def _public(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """Functions, classes and methods of a module that have a public name."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                methods = (n for n in node.body if isinstance(n, ast.FunctionDef))
                yield from (n for n in methods if not n.name.startswith("_"))


# A property whose name says it all, and the protocol of a scheme that each scheme fills in.
SPEAK_FOR_THEMSELVES = {"classes", "steps"}


@pytest.mark.parametrize("family", ["numerics", "attacks", "schemes"])
def test_what_is_solved_is_said_of_every_public_function(family: str) -> None:
    protocol = _methods_of_protocols(family)
    bare = [
        f"{_place(path, node)}: {node.name}"
        for path in (ROOT / family).glob("*.py")
        for node in _public(_tree(path))
        if ast.get_docstring(node) is None
        and node.name not in SPEAK_FOR_THEMSELVES
        and node.name not in protocol
    ]
    assert not bare, "\n".join(bare)


def _methods_of_protocols(family: str) -> set[str]:
    """Methods that a base class or protocol of the family documents for all."""
    return {
        method.name
        for path in (ROOT / family).glob("*.py")
        for node in _public(_tree(path))
        if isinstance(node, ast.ClassDef)
        for method in node.body
        if isinstance(method, ast.FunctionDef) and ast.get_docstring(method) is not None
    }


def test_every_module_says_what_it_is() -> None:
    bare = [p for p in _modules() if p.stat().st_size and ast.get_docstring(_tree(p)) is None]
    assert [p.name for p in bare] in ([], ["__main__.py"])


def test_departures_from_the_paper_stand_in_docstrings() -> None:
    """`grep -rn "Paper note:"` lists them all, each where help() shows it."""
    total = 0
    for path in _modules():
        documented = sum(
            (ast.get_docstring(node, clean=False) or "").count("Paper note:")
            for node in ast.walk(_tree(path))
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        )
        assert path.read_text(encoding="utf-8").count("Paper note:") == documented, path
        total += documented
    assert total > 0


def _functions(path: Path) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.FunctionDef):
            yield node


TESTS = Path(__file__).parent


def test_every_function_of_the_tests_is_typed() -> None:
    """mypy follows them into the package only where they are annotated."""
    bare = [
        f"{path.relative_to(TESTS)}:{node.lineno}: {node.name}"
        for path in TESTS.rglob("*.py")
        for node in _functions(path)
        for arguments in [[*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]]
        if node.returns is None
        or any(one.annotation is None and one.arg not in ("self", "cls") for one in arguments)
    ]
    assert not bare, "\n".join(bare)


def test_tests_lie_where_their_code_lies() -> None:
    """Each folder of tests is named after a folder of the package."""
    folders = {path.name for path in TESTS.iterdir() if path.is_dir() and path.name[0] not in "._"}
    assert folders - {"benchmarks", "hostile", "interop"} <= {
        path.name for path in ROOT.iterdir() if path.is_dir()
    }


@pytest.mark.parametrize("name", ["attack", "calibrate", "simulate", "inspect", "reproduce"])
def test_no_command_is_longer_than_60_lines(name: str) -> None:
    longest = max(_functions(ROOT / "commands" / f"{name}.py"), key=_length)
    assert _length(longest) <= 60, longest.name


def _length(node: ast.FunctionDef) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1
