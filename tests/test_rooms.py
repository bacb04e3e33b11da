"""The rooms of the package and of its tests: who may import whom, read off every import, those inside functions too."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE, TESTS = ROOT / "pass_loader", ROOT / "tests"

# cli, gpu -> loading -> data -> {pack -> remote, recipes} -> {keys, errors, permutation}. pack knows the version
# too. A room may import itself and these.
BELOW: dict[str, set[str]] = {"errors": {"_C"}, "keys": {"_C"}, "permutation": set()}
BELOW["version"] = set()
BELOW["remote"] = {"errors"}
BELOW["recipes"] = {"errors", "keys", "permutation", "_C"}
BELOW["pack"] = {"remote", "version"} | BELOW["recipes"]
BELOW["data"] = {"pack", "recipes"} | BELOW["pack"]
BELOW["loading"] = {"data"} | BELOW["data"]
BELOW["cli"] = {"loading", "version"} | BELOW["loading"]
BELOW["gpu"] = {"loading", "_cuda"} | BELOW["loading"]
BELOW["drop_in"] = {"loading"} | BELOW["loading"]
BELOW["__init__"] = {"gpu", "loading", "version"} | BELOW["loading"]

# (importing module, imported module or library): why
EXCEPTIONS = {
    ("loading.loader", "gpu.batches"): "the loader picks a GPU where one is named",
    ("pack.__init__", "data.pairs"): "pass_loader.pack re-exports the function of each command",
    ("pack.__init__", "data.preview"): "pass_loader.pack re-exports the function of each command",
    ("pack.__init__", "data.stats"): "pass_loader.pack re-exports the function of each command",
    ("pack.__init__", "loading.bench"): "pass_loader.pack re-exports the function of each command",
    ("recipes.reference", "torch"): "the oracle normalises and blurs with torch, inside its functions",
}
NEED_TORCH = {"loading", "gpu"}


@cache
def modules() -> dict[str, Path]:
    """{"loading.loader": its file}: all modules of the package, without their common first name."""
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}


@cache
def imported(name: str, path: Path) -> list[tuple[str, bool]]:
    """Return, for each import: a module of ours as in `modules`, or another's first name; whether it runs at import."""
    found: list[tuple[str, bool]] = []
    tree = ast.parse(path.read_text())
    at_import = {id(inner) for node in tree.body if not _is_guarded(node) for inner in ast.walk(node)}
    for function in ast.walk(tree):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            at_import -= {id(inner) for inner in ast.walk(function)}
    package = name.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                assert alias.name.split(".")[0] != "pass_loader", f"{name}: imports of ours are relative"
                found.append((alias.name.split(".")[0], id(node) in at_import))
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.append(((node.module or "").split(".")[0], id(node) in at_import))
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - (node.level - 1)] + (node.module or "").split(".")
            base = [part for part in base if part]
            for alias in node.names:
                found.append((_module_of(".".join([*base, alias.name]), ".".join(base)), id(node) in at_import))
    return found


def _is_guarded(node: ast.stmt) -> bool:
    """An `if TYPE_CHECKING:`."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _module_of(whole: str, base: str) -> str:
    """`from BASE import NAME`: a module NAME, or a name in the module BASE, or in the package BASE."""
    known = modules()
    for one in (whole, f"{whole}.__init__", base, f"{base}.__init__" if base else "__init__"):
        if one in known or one in ("_C", "_cuda"):
            return one
    raise AssertionError(f"from {base} import ... : no such module")


def room(module: str) -> str:
    return module.split(".")[0]


def test_every_import_goes_down() -> None:
    seen = set()
    for name, path in modules().items():
        for target, _ in imported(name, path):
            ours = target in modules() or target in ("_C", "_cuda")
            if (name, target) in EXCEPTIONS:
                seen.add((name, target))
            elif ours:
                allowed = room(target) == room(name) or room(target) in BELOW[room(name)]
                assert allowed, f"{name} imports {target}, which is not below it"
            elif target == "torch":
                assert room(name) in NEED_TORCH, f"{name} imports torch"
    assert seen == EXCEPTIONS.keys(), f"no longer needed: {EXCEPTIONS.keys() - seen}"


def test_nothing_imports_what_it_must_not() -> None:
    for name, path in modules().items():
        for target, at_import in imported(name, path):
            assert target != "recipes.reference", f"{name}: only tests and benchmarks import the oracle"
            assert target not in ("torchvision", "sklearn", "pandas"), f"{name}: {target} is not needed at run time"
            assert target != "pickle", f"{name}: nothing on disk is unpickled"
            if name in ("recipes.reference", "loading.loader") and at_import:
                assert (name, target) not in EXCEPTIONS, f"{name} imports {target} at once, not when it is needed"


def test_no_circles() -> None:
    """No modules import each other in a circle, imports inside functions included."""
    graph = {
        name: {target for target, _ in imported(name, path) if target in modules() and (name, target) not in EXCEPTIONS}
        for name, path in modules().items()
    }
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, f"a circle of imports: {' -> '.join([*above[above.index(name) :], name])}"
        if name in done:
            return
        for target in graph[name] - {name}:
            visit(target, (*above, name))
        done.add(name)

    for name in graph:
        visit(name, ())


def test_rooms_are_few() -> None:
    """At most six modules beside the seven rooms."""
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == {
        "cli", "data", "gpu", "loading", "pack", "recipes", "remote",
    }  # fmt: skip
    assert {path.stem for path in PACKAGE.glob("*.py")} == {
        "__init__",
        "drop_in",
        "errors",
        "keys",
        "permutation",
        "version",
    }


def test_names_of_classes_are_unique() -> None:
    found: dict[str, str] = {}
    for name, path in modules().items():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                assert node.name not in found, f"class {node.name} stands in {found[node.name]} and in {name}"
                found[node.name] = name


def test_tests_share_helpers_alone() -> None:
    """A test file imports from tests/helpers and from the modules beside it that are no tests."""
    for path in TESTS.rglob("*.py"):
        below = path.relative_to(ROOT).parent.parts
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, (ast.Import, ast.ImportFrom)):
                continue
            names = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                base = [*below[: len(below) - node.level + 1]] if node.level else []
                names = [".".join([*base, *(node.module or "").split("."), name]) for name in names]
            for parts in (name.replace("..", ".").split(".") for name in names):
                if parts[0] != "tests":
                    continue
                assert not any(part.startswith("test_") for part in parts), f"{path} imports the test file {parts}"
                shared = parts[1] == "helpers" or parts[: len(below)] == [*below]
                assert shared, f"{path} imports {'.'.join(parts)}: what rooms share lies in tests/helpers"


def test_test_files_stand_in_the_room_of_what_they_test() -> None:
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")} | {"native", "docs", "helpers"}
    assert {path.parent.name for path in TESTS.glob("*/__init__.py")} == rooms
    of_the_whole = {
        "test_benchmarks.py",
        "test_imports.py",
        "test_lowest.py",
        "test_packaging.py",
        "test_public_names.py",
        "test_rooms.py",
        "test_wheels.py",
    }
    assert {path.name for path in TESTS.glob("test_*.py")} == of_the_whole


def test_files_are_short() -> None:
    for folder in ("csrc", "pass_loader", "tests", "benchmarks"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".pyi", ".h", ".cpp", ".cu", ".cuh"):
                assert len(path.read_text().splitlines()) <= 600, path
