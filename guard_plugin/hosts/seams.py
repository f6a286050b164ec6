"""Seams: the functions of a host that tell loss calls on real data from the others.

A seam is found twice. Before a run, in the host's source, without importing any of it: this is what ``guard doctor``
shows, and a seam that is missing or has another shape stops everything. During a run, on the call stack of a loss
call: nothing of the host is wrapped or replaced, so a function is found wherever it is defined, in a module or in the
script itself, and however its callers imported it.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from guard_plugin.errors import SeamError, UnusableInput

__all__ = ["MODULE_LEVEL", "Definition", "Seam", "find_definitions"]

MODULE_LEVEL = "<module>"
"""As a seam's function: the code at a file's module level, as Python names it."""

_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)

_FIX = "guard this fork with an adapter of its own: docs/writing-an-adapter.md"


@dataclass(frozen=True)
class Seam:
    """A named place in a host.

    Args:
        module: The module, dotted, as the script imports it: "utils".
        function: The function, or :data:`MODULE_LEVEL`.
        role: What it says of the loss calls made under it (in it, or in what it calls). One that "opens" makes them
            candidates for guarding; one that "suspends" keeps them as they are, even where a seam that opens is around
            it; one that "tells" does neither: its local variables are read.
        parameters: The function's parameter names, in order: its shape; None for any.
    """

    module: str
    function: str
    role: Literal["opens", "suspends", "tells"]
    parameters: tuple[str, ...] | None = ()

    @property
    def name(self) -> str:
        """The seam's name, as messages and the ledger write it: "utils.epoch"."""
        return self.module if self.function == MODULE_LEVEL else f"{self.module}.{self.function}"


@dataclass(frozen=True)
class Definition:
    """Where a seam is: a file (resolved), the function's first line, and its parameter names.

    ``first_line`` is what a code object calls ``co_firstlineno``: the line of the first decorator, if there is one.
    """

    seam: Seam
    file: Path
    line: int
    first_line: int
    parameters: tuple[str, ...]


def find_definitions(seam: Seam, script: Path, roots: Sequence[Path] = ()) -> list[Definition]:
    """Find every definition that a seam has in a host, in source: at least one, each of the expected shape.

    Looked at are the seam's module, the script (which may define the function itself), and the modules that the
    script imports the name from: in the script's folder, then in ``roots``.

    Raises:
        SeamError: If there is none, one has other parameters, or the name that the script uses has none.
    """
    folders = (script.parent, *roots)
    home = _module_file(seam, seam.module, folders)
    if seam.function == MODULE_LEVEL:
        return [Definition(seam, home.resolve(), 1, 0, ())]
    imported_from = list(dict.fromkeys(_module_file(seam, module, folders) for module in _imports(seam, script)))
    own = list(_functions(seam, script))
    if not own and not imported_from and home != script and not _is_users(seam):
        raise SeamError(
            f"seam {seam.name}: expected {script} to use {seam.function} (imported or its own), found that it does "
            f"neither; {_FIX}"
        )
    required = [home] if _is_users(seam) else [script] if home == script else imported_from
    found = [*own, *_required(seam, required)]
    if home != script and home not in imported_from:
        found += _functions(seam, home)
    for definition in found:
        if seam.parameters is not None and definition.parameters != seam.parameters:
            raise SeamError(
                f"seam {seam.name}: expected {seam.function}({', '.join(seam.parameters)}), found "
                f"{seam.function}({', '.join(definition.parameters)}) at {definition.file}:{definition.line}; {_FIX}"
            )
    return list(dict.fromkeys(found))


def _is_users(seam: Seam) -> bool:
    """Tell a seam in a user's own words: it may be a method, or be called from elsewhere; it must be in its module."""
    return seam.parameters is None


def _required(seam: Seam, files: Sequence[Path]) -> Iterator[Definition]:
    for file in files:
        here = list(_functions(seam, file))
        if not here:
            fix = f"; {_named(seam, file)}" if _is_users(seam) else f" (it was renamed or moved); {_FIX}"
            raise SeamError(f"seam {seam.name}: expected a function {seam.function} in {file}, found none{fix}")
        yield from here


def _named(seam: Seam, file: Path) -> str:
    """Say which function of a file a user may have meant."""
    known = sorted({node.name for node in ast.walk(_parse(file)) if isinstance(node, _FUNCTION)})
    near = difflib.get_close_matches(seam.function, known, n=1)
    if near:
        return f"did you mean {seam.module}:{near[0]}?"
    return f"its functions: {', '.join(known) or 'none'}; {seam.module} alone is the code at its module level"


def _imports(seam: Seam, script: Path) -> Iterator[str]:
    """Yield the modules that the script imports the seam's function from, by name, by star or as a module."""
    for node in ast.walk(_parse(script)):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [alias.name for alias in node.names]
            if seam.function in names or (node.module == seam.module and "*" in names):
                yield node.module
        elif isinstance(node, ast.Import) and seam.module in [alias.name for alias in node.names]:
            yield seam.module


def _functions(seam: Seam, file: Path) -> Iterator[Definition]:
    for node in ast.walk(_parse(file)):
        if isinstance(node, _FUNCTION) and node.name == seam.function:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            yield Definition(seam, file.resolve(), node.lineno, first, _parameters(node.args))


def _parameters(arguments: ast.arguments) -> tuple[str, ...]:
    plain = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
    star = [f"*{arguments.vararg.arg}"] if arguments.vararg else []
    keyword = [argument.arg for argument in arguments.kwonlyargs]
    stars = [f"**{arguments.kwarg.arg}"] if arguments.kwarg else []
    return (*plain, *star, *keyword, *stars)


def _module_file(seam: Seam, module: str, folders: Sequence[Path]) -> Path:
    for folder in folders:
        base = folder.joinpath(*module.split("."))
        for file in (base.with_suffix(".py"), base / "__init__.py"):
            if file.is_file():
                return file
    why = "" if module == seam.module else f", which the script imports {seam.function} from,"
    listed = " or ".join(map(str, folders))
    fix = "name it as the script imports it, such as utils in utils:epoch" if _is_users(seam) else _FIX
    raise SeamError(f"seam {seam.name}: expected the file {module}.py{why} in {listed}, found none; {fix}")


def _parse(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_bytes(), filename=str(file))
    except (SyntaxError, ValueError, OSError) as error:
        raise UnusableInput(f"{file} cannot be read as Python source: {error}") from error
