"""What a comparison says, in words that claim no more than was measured."""

from collections.abc import Sequence
from dataclasses import dataclass

from guard_plugin.comparison.columns import Column
from guard_plugin.comparison.comparing import Comparison, Difference

__all__ = ["Verdict", "counted_networks", "notes", "percent", "points", "verdicts"]

_MISSES = 0.05  # of intervals of 95 %
_FEW = 5


@dataclass(frozen=True)
class Verdict:
    """One benchmark against the first.

    Args:
        headline: One sentence on robustness.
        details: The figures behind it, and what became of clean accuracy.
    """

    headline: str
    details: tuple[str, ...]


def percent(fraction: float) -> str:
    """A fraction in percent, with one decimal: "76.8"."""
    return f"{100 * fraction:.1f}"


def points(fraction: float) -> str:
    """A difference in percent points, with its sign: "+2.7"."""
    text = f"{100 * fraction:+.1f}"
    return "0.0" if float(text) == 0 else text


def verdicts(comparison: Comparison) -> list[Verdict]:
    """What is to be said of each benchmark but the first."""
    return [_verdict(comparison, label) for label in comparison.others]


def _verdict(comparison: Comparison, label: str) -> Verdict:
    worst = [column for column in comparison.columns if column.kind == "worst"]
    by_sign = {
        sign: [column for column in worst if comparison.differences[column.name][label].sign == sign]
        for sign in (1, -1, 0)
    }
    flagged = any(comparison.benchmarks[one].flags for one in (comparison.first, label))
    headline = _headline(comparison.first, label, by_sign[1], by_sign[-1], by_sign[0])
    return Verdict(
        f"On flagged figures: {headline}" if flagged else headline,
        (*(_figures(comparison, label, column) for column in worst), _clean(comparison, label)),
    )


def _headline(
    first: str, label: str, higher: Sequence[Column], lower: Sequence[Column], open_: Sequence[Column]
) -> str:
    if not higher and not lower:
        where = f" at {_balls(open_)}" if len(open_) == 1 else " at any eps"
        return f"No difference in robustness between {label} and {first} could be shown{where}."
    claims = [
        f"{claim} than {first} at {_balls(columns)}"
        for claim, columns in (("more robust", higher), ("less robust", lower))
        if columns
    ]
    rest = f"; at {_balls(open_)} no difference could be shown" if open_ else ""
    return f"{label} is {' and '.join(claims)}{rest}."


def _balls(columns: Sequence[Column]) -> str:
    """The balls in words, with the norm once: "eps 4/255 and 8/255 (Linf)"."""
    by_norm: dict[str, list[str]] = {}
    for column in columns:
        by_norm.setdefault((column.norm or "").capitalize(), []).append(str(column.eps))
    return " and ".join(f"eps {_listed(eps)} ({norm})" for norm, eps in by_norm.items())


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _figures(comparison: Comparison, label: str, column: Column) -> str:
    entries, difference = comparison.accuracy[column.name], comparison.differences[column.name][label]
    mine, firsts = entries[label]["mean"], entries[comparison.first]["mean"]
    text = (
        f"Under every attack at {column.ball}: {percent(mine)} % against {percent(firsts)} %, {_interval(difference)}."
    )
    return text + (" Both fail altogether: this eps cannot tell them apart." if mine == firsts == 0 else "")


def _clean(comparison: Comparison, label: str) -> str:
    entries, difference = comparison.accuracy["clean"], comparison.differences["clean"][label]
    claim = {1: "is higher", -1: "is lower", 0: "shows no clear difference"}[difference.sign]
    return (
        f"Clean accuracy {claim}: {percent(entries[label]['mean'])} % against "
        f"{percent(entries[comparison.first]['mean'])} %, {_interval(difference)}."
    )


def _interval(difference: Difference) -> str:
    includes = ", which includes 0" if difference.low <= 0 <= difference.high else ""
    return (
        f"{points(difference.value)} points (95 % interval {points(difference.low)} to "
        f"{points(difference.high)}{includes})"
    )


def notes(comparison: Comparison) -> list[str]:
    """How to read the numbers, and what they do not cover."""
    students = comparison.protocol["seeds"]
    return [
        f"95 % intervals: Student's t, from the spread between {counted_networks(comparison)} and between "
        f"{comparison.protocol['n_examples']} examples; differences are paired by "
        f"{_noun(comparison)} and example.",
        *_on_students(students, _noun(comparison)),
        *_on_distillations(comparison),
        *_on_number(comparison),
        "An interval that includes 0 does not show that two are equal. Robust accuracy is against the attacks "
        "that were run: stronger ones can only lower it.",
        *_on_versions(comparison),
    ]


def _noun(comparison: Comparison) -> str:
    """What was attacked: students of distilled sets, or networks that were given."""
    kinds = {one.results["subject"]["kind"] for one in comparison.benchmarks.values()}
    return "student" if kinds == {"distilled"} else "network"


def counted_networks(comparison: Comparison) -> str:
    """How many there are per folder: "3 students"."""
    count = comparison.protocol["seeds"]
    return f"{count} {_noun(comparison)}{'s' if count > 1 else ''}"


def _on_students(students: int, noun: str) -> list[str]:
    if students == 1:
        return [
            f"There is one {noun} per folder: the spread between {noun}s is not seen at all, the intervals hold for "
            f"these alone, and no difference is marked. Measure 5 or more (--seeds)."
        ]
    if students < _FEW:
        return [
            f"With {students} {noun}s their spread is hardly known, which makes the intervals wide: measure 5 or more "
            f"(--seeds)."
        ]
    return []


def _on_distillations(comparison: Comparison) -> list[str]:
    """How little the intervals tell of what distilling again would change."""
    counts = {label: one.results["subject"].get("experiments") for label, one in comparison.benchmarks.items()}
    once = [label for label, count in counts.items() if count == 1]
    few = [f"{label} ({count})" for label, count in counts.items() if count and 1 < count < _FEW]
    return [
        *(
            [f"One distilled set only: {_listed(once)}. What distilling again would change is not seen."]
            if once
            else []
        ),
        *([f"Few distilled sets: {_listed(few)}. What distilling again would change is hardly seen."] if few else []),
    ]


def _on_number(comparison: Comparison) -> list[str]:
    n = len(comparison.columns) * len(comparison.others)
    return [
        f"{n} differences are shown with intervals of 95 % each, not corrected for their number: if nothing differed, "
        f"about {_MISSES * n:.1f} of them would be expected to exclude 0 nevertheless."
    ]


def _on_versions(comparison: Comparison) -> list[str]:
    """What computed the figures, where it is not the same for all."""
    firsts = comparison.benchmarks[comparison.first].results["versions"]
    differing = dict.fromkeys(
        key
        for label in comparison.others
        for key, value in comparison.benchmarks[label].results["versions"].items()
        if firsts.get(key) != value
    )
    return [f"The folders were computed with different versions of: {', '.join(differing)}."] if differing else []
