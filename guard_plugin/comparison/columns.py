"""The columns of results.json, each with its attack."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from guard_plugin.errors import UnusableInput

__all__ = ["Column", "columns_of"]


@dataclass(frozen=True)
class Column:
    """One column of results.json.

    Args:
        name: Its key in results.json.
        kind: "clean", "attack", or "worst": the examples that survive every attack in one ball.
        attack: The attack's name without eps; "clean" or "worst case" for the other kinds.
        norm: The norm of the ball; None for clean accuracy.
        eps: The radius of the ball, as the user wrote it.
        eps_value: The radius of the ball, as a number.
        members: For a worst case, the columns that it unites.
    """

    name: str
    kind: Literal["clean", "attack", "worst"]
    attack: str
    norm: str | None = None
    eps: str | None = None
    eps_value: float | None = None
    members: tuple[str, ...] = ()

    @property
    def norm_label(self) -> str:
        """The norm as a reader writes it: "Linf"; empty for clean accuracy."""
        return (self.norm or "").capitalize()

    @property
    def ball(self) -> str:
        """The ball in words: "eps 8/255 (Linf)"; empty for clean accuracy."""
        return "" if self.eps is None else f"eps {self.eps} ({self.norm_label})"


def columns_of(results: Mapping[str, Any]) -> list[Column]:
    """Match the columns of results.json with the attacks of its protocol, which stand in the same order.

    Raises:
        UnusableInput: If they do not match.
    """
    names, attacks, members = list(results["accuracy"]), list(results["protocol"]["attacks"]), results["worst_cases"]
    clean, attacked, worst = names[:1], names[1 : 1 + len(attacks)], names[1 + len(attacks) :]
    # Each ball once, in the order in which the attacks name them.
    balls = list(dict.fromkeys((attack["norm"], attack["eps"], attack["eps_value"]) for attack in attacks))
    fits = clean == ["clean"] and len(attacked) == len(attacks) and worst == list(members) and len(worst) == len(balls)
    if not fits or not all(name.startswith(attack["name"]) for name, attack in zip(attacked, attacks, strict=True)):
        raise UnusableInput(
            f"the columns {', '.join(names)} are not those of the attacks "
            f"{', '.join(str(attack['name']) for attack in attacks)}"
        )
    columns = [Column("clean", "clean", "clean")]
    for name, attack in zip(attacked, attacks, strict=True):
        columns.append(Column(name, "attack", attack["name"], attack["norm"], attack["eps"], attack["eps_value"]))
    for name, ball in zip(worst, balls, strict=True):
        columns.append(Column(name, "worst", "worst case", *ball, members=tuple(members[name])))
    return columns
