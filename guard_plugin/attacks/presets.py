"""Named lists of attacks."""

from dataclasses import dataclass

__all__ = ["PRESETS", "Preset"]


@dataclass(frozen=True)
class Preset:
    """A list of attacks with the radius that is meant where a user gives none.

    Args:
        attacks: A comma list.
        eps: The radius; None where a user must give one.
    """

    attacks: str
    eps: str | None = None


PRESETS: dict[str, Preset] = {
    "quick": Preset("fgsm,pgd10"),
    "paper": Preset("pgd100,square,autoattack,cw,mim20", "1/255"),
    "guard-official": Preset("official-pgd,official-square,official-autoattack,official-cw,official-mim", "1/255"),
    "robustbench": Preset("autoattack", "8/255"),
}
