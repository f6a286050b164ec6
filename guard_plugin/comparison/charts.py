"""Charts as inline SVG; colours come from the page's style, so that they follow light and dark."""

from collections.abc import Sequence
from dataclasses import dataclass

from guard_plugin.comparison.comparing import Difference
from guard_plugin.comparison.markup import Markup, tag, typeset
from guard_plugin.comparison.words import percent, points

__all__ = ["Point", "Series", "curve_chart", "difference_strip", "marker"]

COLOURS = 6
_WIDTH, _HEIGHT = 300, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 6, 28, 38
_BESIDE = 10
_MARGIN = 8
_SIZE = 4.2
_STRIP_WIDTH, _STRIP_HEIGHT = 132, 18
_LETTER = 6.4  # width of a digit of the labels


@dataclass(frozen=True)
class Point:
    """An accuracy at one eps: mean and bounds as fractions."""

    eps: str
    eps_value: float
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Series:
    """One folder's points, by rising eps.

    Args:
        label: Its folder's label.
        index: Its place among the folders, which chooses colour and marker.
        points: The first is the clean accuracy, at eps 0.
    """

    label: str
    index: int
    points: tuple[Point, ...]


def curve_chart(identity: str, title: str, norm: str, series: Sequence[Series]) -> Markup:
    """Accuracy against eps; with one eps only, points with error bars, since two points make no curve.

    Args:
        identity: Unique in the page.
        title: What is attacked with.
        norm: Of eps.
        series: All at the same eps.
    """
    shared = series[0].points
    scale = max(point.eps_value for point in shared)
    curve = len(shared) > 2
    # Without lines, points stand beside each other, so that their error bars can be told apart.
    spread = 0 if curve else _BESIDE * (len(series) - 1)
    drawn = [_curve(one, scale) if curve else _bars(one, spread, scale) for one in series]
    described = "; ".join(
        f"{one.label}: " + ", ".join(f"{percent(p.mean)} % at eps {p.eps}" for p in one.points) for one in series
    )
    ids = {"title": f"{identity}-title", "desc": f"{identity}-desc"}
    return tag(
        "svg",
        tag("title", f"Accuracy under {title} against eps ({norm})", id=ids["title"]),
        tag("desc", described, id=ids["desc"]),
        tag("text", title, x=0, y=14, class_="chart-title"),
        _axes(shared, norm, scale, spread),
        drawn,
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_labelledby=" ".join(ids.values()),
        class_="chart",
    )


def _x(eps: float, scale: float, spread: float = 0) -> float:
    margin = _MARGIN + spread / 2
    return _LEFT + margin + (_WIDTH - _LEFT - _RIGHT - 2 * margin) * eps / scale


def _y(accuracy: float) -> float:
    return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - accuracy)


def _axes(shared: Sequence[Point], norm: str, scale: float, spread: float) -> list[Markup]:
    lines = []
    for level in (0, 0.25, 0.5, 0.75, 1):
        y = _y(level)
        lines.append(tag("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, class_="axis" if level == 0 else "grid"))
        lines.append(tag("text", f"{100 * level:g} %", x=_LEFT - 6, y=y + 4, class_="tick end"))
    in_255ths = all(point.eps.endswith("/255") for point in shared[1:])
    free_from = -1.0
    for point in shared:
        text, x = point.eps.removesuffix("/255") if in_255ths else point.eps, _x(point.eps_value, scale, spread)
        lines.append(tag("line", x1=x, x2=x, y1=_y(0), y2=_y(0) + 4, class_="axis"))
        half = _LETTER * len(text) / 2
        if x - half > free_from:
            lines.append(tag("text", text, x=x, y=_y(0) + 17, class_="tick middle"))
            free_from = x + half + 2
    unit = f"eps ({norm}){', in 1/255' if in_255ths else ''}"
    lines.append(tag("text", unit, x=_WIDTH - _RIGHT, y=_HEIGHT - 6, class_="tick end"))
    return lines


def _curve(series: Series, scale: float) -> Markup:
    xs = [_x(point.eps_value, scale) for point in series.points]
    upper = [f"{x:.1f},{_y(point.high):.1f}" for x, point in zip(xs, series.points, strict=True)]
    lower = [f"{x:.1f},{_y(point.low):.1f}" for x, point in zip(xs, series.points, strict=True)]
    means = [f"{x:.1f},{_y(point.mean):.1f}" for x, point in zip(xs, series.points, strict=True)]
    return tag(
        "g",
        tag("polygon", points=" ".join([*upper, *reversed(lower)]), class_="band"),
        tag("polyline", points=" ".join(means), class_="curve"),
        [_mark(series.index, x, _y(point.mean)) for x, point in zip(xs, series.points, strict=True)],
        class_=_colour(series.index),
    )


def _bars(series: Series, spread: float, scale: float) -> Markup:
    parts = []
    for point in series.points:
        x = _x(point.eps_value, scale, spread) + _BESIDE * series.index - spread / 2
        parts.append(tag("line", x1=x, x2=x, y1=_y(point.low), y2=_y(point.high), class_="bar"))
        parts.append(_mark(series.index, x, _y(point.mean)))
    return tag("g", parts, class_=_colour(series.index))


def difference_strip(difference: Difference, limit: float) -> Markup:
    """A difference and its interval on a line, with a rule at 0.

    Args:
        difference: What to draw.
        limit: Where the line ends on both sides, as a fraction.
    """

    def x(value: float) -> float:
        return _STRIP_WIDTH / 2 + (_STRIP_WIDTH / 2 - 4) * value / limit

    middle = _STRIP_HEIGHT / 2
    low, high = points(difference.low), points(difference.high)
    return tag(
        "svg",
        tag("title", typeset(f"{points(difference.value)} points, 95 % interval {low} to {high}")),
        tag("line", x1=x(0), x2=x(0), y1=0, y2=_STRIP_HEIGHT, class_="axis"),
        tag("line", x1=x(difference.low), x2=x(difference.high), y1=middle, y2=middle, class_="bar"),
        tag("circle", cx=x(difference.value), cy=middle, r=3.5, class_="dot" if difference.sign else "dot open"),
        viewBox=f"0 0 {_STRIP_WIDTH} {_STRIP_HEIGHT}",
        width=_STRIP_WIDTH,
        height=_STRIP_HEIGHT,
        role="img",
        class_="strip",
    )


def marker(index: int) -> Markup:
    """The marker of a series alone, for a legend; the text beside it names the series."""
    mark = tag("g", _mark(index, 7, 7), class_=_colour(index))
    return tag("svg", mark, viewBox="0 0 14 14", width=14, height=14, aria_hidden="true", class_="key")


def _colour(index: int) -> str:
    return f"series series-{index % COLOURS + 1}"


def _mark(index: int, x: float, y: float) -> Markup:
    """One of five shapes: with six colours, thirty series before two look alike."""
    s = _SIZE
    shapes = (
        f"M{x - s:.1f} {y:.1f}a{s} {s} 0 1 0 {2 * s} 0a{s} {s} 0 1 0 {-2 * s} 0z",
        f"M{x - s:.1f} {y - s:.1f}h{2 * s}v{2 * s}h{-2 * s}z",
        f"M{x:.1f} {y - 1.2 * s:.1f}l{1.2 * s} {2.2 * s}h{-2.4 * s}z",
        f"M{x:.1f} {y - 1.3 * s:.1f}l{1.3 * s} {1.3 * s}l{-1.3 * s} {1.3 * s}l{-1.3 * s} {-1.3 * s}z",
        f"M{x:.1f} {y + 1.2 * s:.1f}l{1.2 * s} {-2.2 * s}h{-2.4 * s}z",
    )
    return tag("path", d=shapes[index % len(shapes)], class_="mark")
