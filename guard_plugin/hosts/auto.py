"""The adapter "auto", for a host without an adapter: the user names its functions on the command line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from guard_plugin.errors import UnusableInput
from guard_plugin.hosts.adapter import Adapter
from guard_plugin.hosts.profile import Profile
from guard_plugin.hosts.seams import MODULE_LEVEL, Seam

__all__ = ["AUTO", "make_adapter"]

AUTO = "auto"


def make_adapter(
    script: Path, *, guard: Sequence[str] = (), suspend: Sequence[str] = (), expect: int | None = None
) -> Adapter:
    """Make an adapter for one script.

    Args:
        script: The script.
        guard: Where loss calls are candidates: "MODULE:FUNCTION", or "MODULE" for a file's module level.
        suspend: Where they are not, even under one of the former.
        expect: How many loss calls the run must guard, if the user knows; else at least one.

    Raises:
        UnusableInput: If there is nothing to guard, a seam is not written like this, or is both.
    """
    if not guard:
        raise UnusableInput(
            "adapter auto: expected --guard MODULE:FUNCTION, which says under which function the loss on real data is "
            "computed (MODULE alone for code at a file's module level); got none"
        )
    both = sorted(set(guard) & set(suspend))
    if both:
        raise UnusableInput(f"adapter auto: {', '.join(both)} cannot be both guarded and suspended")
    if expect is not None and expect < 1:
        raise UnusableInput(f"adapter auto: expected --expect >= 1, got {expect}")
    seams = (*(_seam(text, "opens") for text in guard), *(_seam(text, "suspends") for text in suspend))
    return Adapter(
        name=AUTO,
        host=f"{script.parent} (as described on the command line)",
        profiles=(Profile(script=script.name, seams=seams, expected=expect),),
    )


def _seam(text: str, role: Literal["opens", "suspends"]) -> Seam:
    module, colon, function = text.partition(":")
    names = [*module.split("."), *([function] if colon else [])]
    if not all(name.isidentifier() for name in names):
        raise UnusableInput(f"adapter auto: expected a seam as MODULE:FUNCTION, such as utils:epoch, got {text!r}")
    return Seam(module, function if colon else MODULE_LEVEL, role, parameters=None)
