"""What is run: a script as ``python SCRIPT`` runs it, or a module as ``python -m MODULE`` does."""

from __future__ import annotations

import builtins
import importlib
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from guard_plugin.errors import UnusableInput

__all__ = ["Program", "find_program", "folder_of_module"]


@dataclass(frozen=True)
class Program:
    """A script, or a module below the current folder.

    Args:
        name: As the user gave it: "train.py", "package.train".
        file: Its source.
        module: Its name as a module, "package.train" or "package.__main__"; empty for a script.
    """

    name: str
    file: Path
    module: str = ""

    @property
    def words(self) -> tuple[str, ...]:
        """What the user gave on the command line."""
        return ("-m", self.name) if self.module else (self.name,)

    @property
    def folder(self) -> Path:
        """The folder, resolved, that imports are looked up in first."""
        file = self.file.resolve()  # Python, too, looks up a script's imports beside the file that a link leads to
        return folder_of_module(self.module, file) if self.module else file.parent

    def become(self, arguments: Sequence[str], roots: Sequence[Path] = ()) -> None:
        """Give the process what Python would give the program: argv, the import path and ``__main__``."""
        sys.argv = [str(self.file) if self.module else self.name, *arguments]
        if not getattr(sys.flags, "safe_path", False):  # python -P gives a program no folder of its own
            sys.path[0:1] = [str(self.folder)]
        sys.path += map(str, roots)
        main = types.ModuleType("__main__")
        spec = importlib.util.spec_from_file_location(self.module, self.file) if self.module else None
        main.__dict__.update(
            __file__=str(self.file),
            __builtins__=builtins,
            __cached__=spec.cached if spec else None,
            __loader__=spec.loader if spec else importlib.machinery.SourceFileLoader("__main__", str(self.file)),
            __package__=spec.parent if spec else None,
            __spec__=spec,
        )
        sys.modules["__main__"] = main

    def execute(self, source: bytes | str) -> None:
        """Execute the program's source as ``__main__``, after the packages that a module lies in."""
        package = self.module.rpartition(".")[0]
        if package:
            importlib.import_module(package)
        exec(compile(source, str(self.file), "exec", dont_inherit=True), sys.modules["__main__"].__dict__)


def folder_of_module(module: str, file: Path) -> Path:
    """Return the folder that a module's name begins in: that of "package" for "package.train"."""
    return file.parents[module.count(".")]


def find_program(name: str, *, is_module: bool, folder: Path | None = None) -> Program:
    """Find what the user named, as seen from here or from the folder that it shall run in.

    Raises:
        UnusableInput: If there is no such script or module, or two.
    """
    places = [Path.cwd(), *([folder] if folder else [])]
    if is_module:
        return _find_module(name, places[-1])
    if name == "-":
        raise UnusableInput("expected a script in a file, found -, the standard input; write it to a file, and name it")
    found = {(place / name).resolve(): place / name for place in places if (place / name).is_file()}
    if len(found) != 1:
        looked = " and ".join(str((place / name).absolute()) for place in places)
        raise UnusableInput(f"expected one script {name}, found {len(found)}: looked at {looked}")
    return Program(name, next(iter(found.values())).absolute())


def _find_module(name: str, folder: Path) -> Program:
    for module in (name, f"{name}.__main__"):
        file = folder.absolute().joinpath(*module.split(".")).with_suffix(".py")
        if all(part.isidentifier() for part in module.split(".")) and file.is_file():
            return Program(name, file, module)
    raise UnusableInput(
        f"expected -m MODULE, such as package.train, a module of the host's below {folder.absolute()}, got {name!r}: "
        f"found neither a file of that name nor a package with a __main__.py there"
    )
