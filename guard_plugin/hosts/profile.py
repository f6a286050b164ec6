"""What is known of one script of a host: its seams, its options, and how many loss calls a run must guard."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guard_plugin.errors import SeamError, UnusableInput
from guard_plugin.hosts.faults import Fault, FoundFault, find_faults
from guard_plugin.hosts.seams import Definition, Seam, find_definitions

__all__ = ["ExpectedCount", "Profile", "RefusedOption", "UnguardedOption"]


@dataclass(frozen=True)
class ExpectedCount:
    """How many loss calls a run must guard, from the host's own variables.

    Args:
        seam: The name of the seam whose local variables the formula needs.
        formula: Computes the number from those variables.
        explanation: The formula in words, for messages.
    """

    seam: str
    formula: Callable[[Mapping[str, Any]], int]
    explanation: str

    def compute(self, variables: Mapping[str, Any]) -> int:
        """Compute the number.

        Raises:
            SeamError: If the host's variables are not those that the formula needs.
        """
        try:
            return int(self.formula(variables))
        except (KeyError, AttributeError, TypeError, ValueError) as error:
            raise SeamError(
                f"seam {self.seam}: expected its local variables to give {self.explanation}, found that they do not "
                f"({type(error).__name__}: {error}): without this number a run cannot be proved complete; guard this "
                f"fork with an adapter of its own: docs/writing-an-adapter.md"
            ) from error


@dataclass(frozen=True)
class RefusedOption:
    """A value of one of the script's own options with which it cannot be guarded.

    Args:
        option: The option: "--loss_type".
        value: The value: "mse".
        reason: Why.
    """

    option: str
    value: str
    reason: str

    def given_in(self, arguments: Sequence[str]) -> bool:
        """Tell whether a command line gives the option this value, last (argparse's abbreviations included)."""
        return _values_given(self.option, arguments)[-1:] == [self.value]


@dataclass(frozen=True)
class UnguardedOption:
    """An option of the script's own with which it has nothing to guard.

    Args:
        option: The option: "--test-only".
        reason: What it does then: "it only tests a network".
    """

    option: str
    reason: str

    def given_in(self, arguments: Sequence[str]) -> bool:
        """Tell whether a command line gives the option, and, last, not an empty value: ``--check-ckpt "$UNSET"``."""
        return _values_given(self.option, arguments)[-1:] not in ([], [""])


def _values_given(option: str, arguments: Sequence[str]) -> list[str | None]:
    """Return the values that a command line gives an option, in order; argparse takes an option's beginning too.

    None stands for an option at the end, after which nothing comes.
    """
    values: list[str | None] = []
    for position, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if len(name) > 2 and option.startswith(name):
            values.append(value if equals else next(iter(arguments[position + 1 :]), None))
    return values


@dataclass(frozen=True)
class Profile:
    """One script of a host.

    Args:
        script: The script's path relative to the host's folder: "main.py", "buffer/buffer_FTD.py".
        seams: Its seams; at least one opens, unless the script holds no guarded phase.
        expected: How many loss calls a complete run guards, where it is known or the host's variables tell.
        refused: Why the script cannot be guarded at all; empty where it can.
        unguarded: Why the script has nothing to guard and runs as it is; empty where it has.
        roots: Folders, relative to the script's, that its imports are looked up in besides its own: ("..",).
        refused_options: Values of its options with which it cannot be guarded.
        unguarded_options: Options with which it has nothing to guard.
        writes: Names, as a glob, of the files that it writes for another script ("replay_buffer_*.pt"): they get a
            marker beside them that they are GUARD's.
        writes_into: Where the files lie in a folder that it fills for another script ("new*/*.jpg"): the folder gets a
            marker beside it.
        reads: Names, as a glob, of the files that it reads from another script: their markers are checked.
        reads_folders: Options ("--syn-data-path") whose values are folders that another script filled: likewise.
        about: What is known of what it writes, by "dataset" and "arch", as the host calls them: the name itself, or
            the option that gives it, with its default.
        faults: Faults that the host is known to have.
        real: Lines ("main.py:191") whose loss calls under an open seam are on real data, whatever they look like.
        made_by: What makes batches of real data, in the words of ``guard observe`` ("a DataLoader over CIFAR10"); empty
            where that does not matter.
    """

    script: str
    seams: tuple[Seam, ...] = ()
    expected: ExpectedCount | int | None = None
    refused: str = ""
    unguarded: str = ""
    roots: tuple[str, ...] = ()
    refused_options: tuple[RefusedOption, ...] = ()
    unguarded_options: tuple[UnguardedOption, ...] = ()
    writes: str = ""
    writes_into: str = ""
    reads: str = ""
    reads_folders: tuple[str, ...] = ()
    about: Mapping[str, str | tuple[str, str]] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    real: tuple[str, ...] = ()
    made_by: tuple[str, ...] = ()

    def host(self, script: Path) -> Path:
        """Return the host's folder, from where the script lies."""
        return script.resolve().parents[len(Path(self.script).parts) - 1]

    def import_roots(self, script: Path) -> list[Path]:
        """Return the folders, resolved, that the script's imports are looked up in besides its own."""
        return [(script.resolve().parent / root).resolve() for root in self.roots]

    def locate(self, script: Path) -> list[Definition]:
        """Find all seams in source.

        Raises:
            SeamError: Naming the file and the seam, if one is missing or has another shape.
        """
        given = [Path(folder).absolute() for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
        roots = [*given, *self.import_roots(script)]
        return [definition for seam in self.seams for definition in find_definitions(seam, script, roots)]

    def find_faults(self, script: Path) -> list[FoundFault]:
        """Find those of the known faults that are there."""
        return find_faults(self.faults, self.host(script))

    def why_unguarded(self, arguments: Sequence[str]) -> str:
        """Say why a run with these arguments has nothing to guard; nothing where it has."""
        reasons = [option.reason for option in self.unguarded_options if option.given_in(arguments)]
        return self.unguarded or "".join(reasons[:1])

    def folders_read(self, arguments: Sequence[str]) -> list[Path]:
        """Return the folders that another script filled, and this one reads with these arguments."""
        given = [_values_given(option, arguments)[-1:] for option in self.reads_folders]
        return [Path(value) for values in given for value in values if value]

    def written_about(self, arguments: Sequence[str]) -> dict[str, str]:
        """Return what is known of what a run with these arguments writes: "dataset" and "arch"."""
        told: dict[str, str | None] = {}
        for key, name in self.about.items():
            told[key] = name if isinstance(name, str) else [name[1], *_values_given(name[0], arguments)][-1]
        return {key: name for key, name in told.items() if name}

    def check_arguments(self, arguments: Sequence[str]) -> None:
        """Refuse arguments of the script with which it cannot be guarded.

        Raises:
            UnusableInput: With the reason.
        """
        for refused in self.refused_options:
            if refused.given_in(arguments):
                raise UnusableInput(
                    f"{self.script} cannot be guarded with {refused.option} {refused.value}: {refused.reason}"
                )
