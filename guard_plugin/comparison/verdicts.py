"""What a comparison says of each benchmark, in words that claim no more than was measured, and how to read it."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from guard_plugin.comparison.comparing import Comparison
from guard_plugin.comparison.reading import Column
from guard_plugin.evaluation.tables import percent

__all__ = ["Verdict", "counted_networks", "notes", "points", "verdicts"]

_MISSES = 0.05  # the share of 95 % intervals that miss the true value
_FEW = 5


class Verdict(NamedTuple):
    """One sentence on a benchmark's robustness, and sentences with the figures behind it and on clean accuracy."""

    headline: str
    details: list[str]


def verdicts(comparison: Comparison) -> dict[str, Verdict]:
    """Return label -> verdict for each benchmark but the first, with which it is compared."""
    worst = [column for column in comparison.columns if column.kind == "worst"]
    flagged = {label for label, _, _ in comparison.flags}
    found = {}
    for label in comparison.others:
        headline = _headline(comparison, label, worst)
        if flagged & {comparison.first, label}:
            headline = f"On flagged figures: {headline}"
        details = [*(_robustness(comparison, label, column) for column in worst), _clean(comparison, label)]
        found[label] = Verdict(headline, details)
    return found


def _headline(comparison: Comparison, label: str, worst: Sequence[Column]) -> str:
    first = comparison.first
    by_sign: dict[int, list[Column]] = {1: [], -1: [], 0: []}
    for column in worst:
        by_sign[comparison.differences[column.name][label].sign].append(column)
    undecided = by_sign[0]
    if len(undecided) == len(worst):
        where = f" at {_balls(undecided)}" if len(undecided) == 1 else " at any eps"
        return f"No difference in robustness between {label} and {first} could be shown{where}."
    claims = [
        f"{claim} than {first} at {_balls(by_sign[sign])}"
        for sign, claim in ((1, "more robust"), (-1, "less robust"))
        if by_sign[sign]
    ]
    rest = f"; at {_balls(undecided)} no difference could be shown" if undecided else ""
    return f"{label} is {' and '.join(claims)}{rest}."


def _balls(columns: Sequence[Column]) -> str:
    """Write the balls with each norm once: "eps 4/255 and 8/255 (Linf)"."""
    by_norm: dict[str, list[str]] = {}
    for column in columns:
        by_norm.setdefault(column.norm_label, []).append(str(column.eps))
    return " and ".join(f"eps {_listed(eps)} ({norm})" for norm, eps in by_norm.items())


def _listed(words: Sequence[str]) -> str:
    """Join words as in a sentence: "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _robustness(comparison: Comparison, label: str, column: Column) -> str:
    means = [comparison.accuracy[column.name][one]["mean"] for one in (label, comparison.first)]
    text = f"Under every attack at {column.ball}: {_figures(comparison, label, column.name)}."
    return text + (" Both fail altogether: this eps cannot tell them apart." if means == [0, 0] else "")


def _clean(comparison: Comparison, label: str) -> str:
    sign = comparison.differences["clean"][label].sign
    claim = {1: "is higher", -1: "is lower", 0: "shows no clear difference"}[sign]
    return f"Clean accuracy {claim}: {_figures(comparison, label, 'clean')}."


def _figures(comparison: Comparison, label: str, column: str) -> str:
    """Write both accuracies, and their difference with its interval."""
    mean, firsts = (comparison.accuracy[column][one]["mean"] for one in (label, comparison.first))
    one = comparison.differences[column][label]
    includes = ", which includes 0" if one.low <= 0 <= one.high else ""
    return (
        f"{percent(mean)} % against {percent(firsts)} %, {points(one.value)} points "
        f"(95 % interval {points(one.low)} to {points(one.high)}{includes})"
    )


def points(fraction: float) -> str:
    """Write a difference in percent points, with its sign unless it is rounded to zero: "+2.7"."""
    text = f"{100 * fraction:+.1f}"
    return "0.0" if float(text) == 0 else text


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
        yield f"One distilled set only: {_listed(once)}. What distilling again would change is not seen."
    if few:
        yield f"Few distilled sets: {_listed(few)}. What distilling again would change is hardly seen."


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
