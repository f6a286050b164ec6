"""How to read a comparison, and what it does not show."""

from collections.abc import Iterator

from guard_plugin.comparison.comparing import Comparison
from guard_plugin.comparison.verdicts import listed, unit_noun
from guard_plugin.evaluation.tables import number

__all__ = ["measured_on", "notes"]

_MISSES = 0.05  # the share of 95 % intervals that miss the true value
_FEW = 5


def notes(comparison: Comparison) -> list[str]:
    """Return sentences on how to read the numbers, and on what they do not cover."""
    return [
        *_on_intervals(comparison),
        *_on_one(comparison),
        *_on_few(comparison),
        *_on_many_differences(comparison),
        "Robust accuracy is against the attacks that were run: stronger ones can only lower it.",
        *_on_versions(comparison),
    ]


def measured_on(comparison: Comparison) -> str:
    """Write how many sets and students there are: "3 distilled sets and 6 students per folder"."""
    noun = unit_noun(comparison)
    sizes = {}
    for label, one in comparison.benchmarks.items():
        students = f" and {number(len(one.sets), 'student')}" if one.unit == "sets" else ""
        sizes[label] = f"{number(one.count, noun)}{students}"
    if len(set(sizes.values())) == 1:
        return f"{sizes[comparison.first]} per folder"
    return "; ".join(f"{label}: {size}" for label, size in sizes.items())


def _on_intervals(comparison: Comparison) -> Iterator[str]:
    noun = unit_noun(comparison)
    averaged = "; students of one set are averaged first" if noun == "distilled set" else ""
    pairs = f"{noun} and example" if comparison.pairs_sets else "example"
    yield (
        f"95 % intervals (Student's t) have two samples: {noun}s, which are independent of each other{averaged}, and "
        f"examples. There are {measured_on(comparison)}, and {number(comparison.protocol['n_examples'], 'example')}. "
        f"Differences are paired by {pairs}."
    )
    if noun == "network":
        yield "Networks that were trained on one distilled set hang together: of such, the intervals are too narrow."
    untold = [label for label, one in comparison.benchmarks.items() if not one.is_told]
    if untold:
        yield f"Not told is which student is of which distilled set in {listed(untold)}: all count as of one set."


def _on_one(comparison: Comparison) -> Iterator[str]:
    """Say what a single set does not show."""
    once = [label for label, one in comparison.benchmarks.items() if one.count == 1]
    if once and unit_noun(comparison) == "network":
        yield (
            f"One network only: {listed(once)}. Its intervals hold for this network, and no difference with it is "
            f"marked: measure networks of {_FEW} or more seeds (--checkpoint, repeated)."
        )
    elif once:
        yield (
            f"One distilled set only: {listed(once)}. Its intervals hold for this set, and no difference with it is "
            f"marked. More students do not show what distilling again would change: distil with {_FEW} or more seeds, "
            f"and benchmark them together (--distilled, repeated)."
        )


def _on_few(comparison: Comparison) -> Iterator[str]:
    noun = unit_noun(comparison)
    few = [f"{label} ({one.count})" for label, one in comparison.benchmarks.items() if 1 < one.count < _FEW]
    if few:
        yield (
            f"Few {noun}s: {listed(few)}. Their spread is hardly known, which makes the intervals wide: take {_FEW} or "
            f"more seeds."
        )


def _on_many_differences(comparison: Comparison) -> Iterator[str]:
    judged = sum(one.is_judged for one in comparison.every_difference)
    if judged:
        yield (
            f"{judged} differences are shown with intervals of 95 % each, not corrected for their number: if "
            f"nothing differed, about {_MISSES * judged:.1f} of them would be expected to exclude 0 nevertheless. "
            f"An interval that includes 0 does not show that two are equal."
        )


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
