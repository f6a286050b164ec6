"""What a fuzz case ends with: one word on what happened, or a disagreement."""

import random
from dataclasses import dataclass

__all__ = ["Case", "Disagreement", "generator"]


class Disagreement(Exception):
    """What guard_plugin did is not what the reference, or the generator of the case, says."""


@dataclass(frozen=True)
class Case:
    """One case of the fuzz, which (seed, kind, number) determine."""

    seed: int
    kind: str
    number: int

    def command(self) -> str:
        """Return the command that runs this case again."""
        return f"python -m tests.fuzz --seed {self.seed} --only {self.kind} --case {self.number}"


def generator(*key: object) -> random.Random:
    """Return the generator of random numbers that belongs to a key, in every process and version of Python."""
    return random.Random("/".join(map(str, key)))
