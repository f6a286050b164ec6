"""What the local variables of a host's functions tell: how many loss calls to expect, which files are handed on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from guard_plugin.errors import SeamError

__all__ = ["ExpectedCount", "HandedFiles"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class ExpectedCount:
    """How many loss calls a run must guard, from the host's own variables.

    Args:
        seam: The name of the seam whose local variables tell.
        formula: From those variables to the number.
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
        return _told(self.seam, lambda: int(self.formula(variables)), self.explanation)


@dataclass(frozen=True)
class HandedFiles:
    """Files that one script of a host writes and another one reads, where the host's variables tell the folder.

    Args:
        seam: The name of the seam whose local variables tell.
        folder: From those variables to the folder.
        pattern: The files' names in it, as a glob: "replay_buffer_*.pt".
        explanation: The folder in words, for messages.
    """

    seam: str
    folder: Callable[[Mapping[str, Any]], str | Path]
    pattern: str
    explanation: str

    def locate(self, variables: Mapping[str, Any]) -> Path:
        """Compute the folder, absolute.

        Raises:
            SeamError: If the host's variables are not those that it follows from.
        """
        return _told(self.seam, lambda: Path(self.folder(variables)).absolute(), self.explanation)


def _told(seam: str, compute: Callable[[], _T], explanation: str) -> _T:
    try:
        return compute()
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise SeamError(
            f"seam {seam}: expected its local variables to give {explanation}, found that they do not "
            f"({type(error).__name__}: {error}): without it a run cannot be proved complete; guard this fork with an "
            f"adapter of its own: docs/writing-an-adapter.md"
        ) from error
