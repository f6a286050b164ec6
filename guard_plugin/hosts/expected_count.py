"""How many loss calls a run must guard, computed from the local variables of a host's functions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from guard_plugin.errors import SeamError

__all__ = ["ExpectedCount"]


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
