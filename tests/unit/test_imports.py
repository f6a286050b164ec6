"""The rooms of the package: who imports whom, and what ``import guard_plugin`` loads."""

import ast
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "guard_plugin"


def room_of(module: str) -> str:
    """The package or module at the top level of guard_plugin."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield what a module imports at run time, also inside functions; not what only type checkers read."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            # "from guard_plugin import hookspecs" names a module.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from names if node.module == "guard_plugin" else [node.module]
        else:
            yield from imported(node)


def rooms() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for file in PACKAGE.rglob("*.py"):
        room = room_of(".".join(["guard_plugin", *file.relative_to(PACKAGE).with_suffix("").parts]))
        names = [name for name in imported(ast.parse(file.read_text())) if name.split(".")[0] == "guard_plugin"]
        tops = {name for name in map(room_of, names) if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file()}
        found.setdefault(room, set()).update(tops - {room})
    return found


def test_no_room_imports_one_that_imports_it():
    left = rooms()
    while free := {room for room, needs in left.items() if not needs & set(left)}:
        left = {room: needs for room, needs in left.items() if room not in free}
    assert left == {}, "these rooms import each other in a circle"


def test_the_penalties_import_nothing_above_them():
    assert rooms()["penalties"] <= {"errors", "quantities", "spaces", "versions"}


@pytest.mark.parametrize("room", ["calls", "account"])
def test_what_a_host_calls_and_the_account_of_a_run_know_nothing_of_the_guard(room):
    own = f"guard_plugin.injection.{room}", "guard_plugin.injection.patching"
    for file in (PACKAGE / "injection" / room).glob("*.py"):
        names = [name for name in imported(ast.parse(file.read_text())) if name.startswith("guard_plugin.injection")]
        assert all(name.startswith(own) for name in names), (file, names)


def test_no_core_module_imports_an_adapter():
    for file in PACKAGE.rglob("*.py"):
        assert not [name for name in imported(ast.parse(file.read_text())) if name.startswith("guard_adapters")], file


@pytest.mark.parametrize(
    "statement", ["import guard_plugin", "import guard_plugin; guard_plugin.wrap, guard_plugin.attach"]
)
def test_importing_the_package_leaves_the_benchmark_unloaded(statement):
    code = f"import sys; {statement}; print(*[name for name in sys.modules if name.startswith('guard_plugin.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {room_of(name) for name in done.stdout.split()}
    assert {"penalties", "injection"} <= loaded
    assert not loaded & {
        "attacks",
        "evaluation",
        "datasets",
        "networks",
        "students",
        "comparison",
        "diagnostics",
        "cli",
    }
