"""How to read the numbers of a comparison, and what they do not cover."""

from collections.abc import Iterator

from guard_plugin.comparison.comparing import Comparison
from guard_plugin.comparison.verdicts import listed

__all__ = ["counted_networks", "notes"]

_MISSES = 0.05  # the share of 95 % intervals that miss the true value
_FEW = 5


def notes(comparison: Comparison) -> list[str]:
    """Return sentences on how to read the numbers, and on what they do not cover."""
    n = len(comparison.columns) * len(comparison.others)
    return [
        f"95 % intervals: Student's t, from the spread between {counted_networks(comparison)} and between "
        f"{comparison.protocol['n_examples']} examples; differences are paired by "
        f"{_noun(comparison)} and example.",
        *_on_networks(comparison),
        *_on_distillations(comparison),
        f"{n} differences are shown with intervals of 95 % each, not corrected for their number: if nothing differed, "
        f"about {_MISSES * n:.1f} of them would be expected to exclude 0 nevertheless.",
        "An interval that includes 0 does not show that two are equal. Robust accuracy is against the attacks "
        "that were run: stronger ones can only lower it.",
        *_on_versions(comparison),
    ]


def counted_networks(comparison: Comparison) -> str:
    """Write how many networks there are per folder: "3 students"."""
    count = comparison.protocol["seeds"]
    return f"{count} {_noun(comparison)}{'s' if count > 1 else ''}"


def _noun(comparison: Comparison) -> str:
    """Return what was attacked: students of distilled sets, or networks that were given."""
    kinds = {benchmark.results["subject"]["kind"] for benchmark in comparison.benchmarks.values()}
    return "student" if kinds == {"distilled"} else "network"


def _on_networks(comparison: Comparison) -> Iterator[str]:
    """Warn of few networks."""
    count, noun = comparison.protocol["seeds"], _noun(comparison)
    if count == 1:
        yield (
            f"There is one {noun} per folder: the spread between {noun}s is not seen at all, the intervals hold for "
            f"these alone, and no difference is marked. Measure 5 or more (--seeds)."
        )
    elif count < _FEW:
        yield (
            f"With {count} {noun}s their spread is hardly known, which makes the intervals wide: measure 5 or more "
            f"(--seeds)."
        )


def _on_distillations(comparison: Comparison) -> Iterator[str]:
    """Warn of few distilled sets: the intervals say little of what distilling again would change."""
    counts = {label: one.results["subject"].get("experiments") for label, one in comparison.benchmarks.items()}
    once = [label for label, count in counts.items() if count == 1]
    few = [f"{label} ({count})" for label, count in counts.items() if count and 1 < count < _FEW]
    if once:
        yield f"One distilled set only: {listed(once)}. What distilling again would change is not seen."
    if few:
        yield f"Few distilled sets: {listed(few)}. What distilling again would change is hardly seen."


def _on_versions(comparison: Comparison) -> Iterator[str]:
    """Name the packages whose versions differ between the folders."""
    firsts = comparison.benchmarks[comparison.first].results["versions"]
    differing = dict.fromkeys(
        key
        for label in comparison.others
        for key, value in comparison.benchmarks[label].results["versions"].items()
        if firsts.get(key) != value
    )
    if differing:
        yield f"The folders were computed with different versions of: {', '.join(differing)}."
