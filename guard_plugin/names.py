"""Names as users write them: in any case, with hyphens and underscores or without."""

from collections.abc import Iterable

__all__ = ["spelled"]


def spelled(name: str, known: Iterable[str]) -> str:
    """Return the known name that differs from a user's in case, hyphens and underscores only.

    A name that is known as it is, or that several known names or none are like, is returned as it is.

    Example:
        >>> spelled("cifar-10", ["CIFAR10", "CIFAR100"])
        'CIFAR10'
    """
    names = dict.fromkeys(known)
    alike = [name] if name in names else [one for one in names if _folded(one) == _folded(name)]
    return alike[0] if len(alike) == 1 else name


def _folded(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")
