"""The columns of results.json, each with the attack that it tells of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from guard_plugin.errors import UnusableInput

__all__ = ["Column", "columns_of"]


@dataclass(frozen=True)
class Column:
    """One column.

    Args:
        name: Its key in results.json.
        kind: "clean", "attack", or "worst": the examples that survive every attack in one ball.
        attack: The attack's name without eps; of other kinds, what a reader calls them.
        norm: The ball's norm, where there is a ball.
        eps: Its radius, as the user wrote it.
        eps_value: Its radius, as a number.
        members: Of a worst case, the columns that it unites.
    """

    name: str
    kind: Literal["clean", "attack", "worst"]
    attack: str
    norm: str | None = None
    eps: str | None = None
    eps_value: float | None = None
    members: tuple[str, ...] = ()

    @property
    def ball(self) -> str:
        """The ball in words: "eps 8/255 (Linf)"; empty where there is none."""
        return f"eps {self.eps} ({(self.norm or '').capitalize()})" if self.eps is not None else ""


def columns_of(results: Mapping[str, Any]) -> list[Column]:
    """Match the columns of results.json with the attacks of its protocol, which are in the same order.

    Raises:
        UnusableInput: If they do not match.
    """
    names, attacks = list(results["accuracy"]), list(results["protocol"]["attacks"])
    clean, attacked, worst = names[:1], names[1 : 1 + len(attacks)], names[1 + len(attacks) :]
    balls = _balls(attacks)
    members = results["worst_cases"]
    fits = clean == ["clean"] and len(attacked) == len(attacks) and worst == list(members) and len(worst) == len(balls)
    if not fits or not all(name.startswith(attack["name"]) for name, attack in zip(attacked, attacks, strict=True)):
        raise UnusableInput(
            f"the columns {', '.join(names)} are not those of the attacks "
            f"{', '.join(str(attack['name']) for attack in attacks)}"
        )
    return [
        Column("clean", "clean", "clean"),
        *(
            Column(name, "attack", attack["name"], attack["norm"], attack["eps"], attack["eps_value"])
            for name, attack in zip(attacked, attacks, strict=True)
        ),
        *(
            Column(name, "worst", "worst case", *ball, members=tuple(members[name]))
            for name, ball in zip(worst, balls, strict=True)
        ),
    ]


def _balls(attacks: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, float]]:
    """The balls in the order in which they appear."""
    return list(dict.fromkeys((attack["norm"], attack["eps"], attack["eps_value"]) for attack in attacks))
