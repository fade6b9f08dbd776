"""A sweep as a picture; imported only when one is drawn, since matplotlib takes its time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from .errors import ConfigurationError, nearest

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .schema import Choice
    from .sweep import Metric, Point, Sweep

N = 2
"""Distinct-n counts pairs of words."""


def length(choice: Choice) -> float:
    """Return the length in words."""
    return float(len(choice.text.split()))


def mean_logprob(choice: Choice) -> float | None:
    """Return the mean log-probability of a token, or None where there are none."""
    scores = [score for score in (choice.logprobs.token_logprobs if choice.logprobs else []) if score is not None]
    return sum(scores) / len(scores) if scores else None


def distinct(choice: Choice) -> float | None:
    """Return the share of different ones among the pairs of words (distinct-2, Li et al. 2016, arXiv:1510.03055)."""
    words = choice.text.split()
    pairs = list(zip(*(words[start:] for start in range(N)), strict=False))
    return len(set(pairs)) / len(pairs) if pairs else None


METRICS: dict[str, tuple[Callable[[Choice], float | None], str]] = {
    "length": (length, "length (words)"),
    "logprob": (mean_logprob, "mean log-probability of a token"),
    "distinct": (distinct, "distinct pairs of words (distinct-2)"),
}
SHARES = "finish_reason"


def draw(sweep: Sweep, metric: str | Metric, *, x: str | None, by: str | None) -> Axes:
    """Draw a metric of every choice of a sweep; see Sweep.plot."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise ConfigurationError("a plot needs matplotlib: pip install 'completions-magic[plot]'") from None
    x = x or next(iter(sweep.axes))
    for name in (x, *([by] if by else [])):
        if name not in sweep.axes:
            raise ConfigurationError(f"{name!r} was not swept{nearest(name, sweep.axes)}")
    if metric != SHARES and not callable(metric) and metric not in METRICS:
        raise ConfigurationError(f"a metric is {', '.join([*METRICS, SHARES])} or a function, not {metric!r}")
    _, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    axes.set_xlabel(x)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if metric == SHARES:
        _draw_shares(sweep, axes, x)
    else:
        of, label = METRICS[metric] if isinstance(metric, str) else (metric, getattr(metric, "__name__", "metric"))
        axes.set_ylabel(label)
        _draw_lines(sweep, axes, x, by, of)
    return axes


def _draw_lines(sweep: Sweep, axes: Axes, x: str, by: str | None, metric: Metric) -> None:
    """Draw a dot for every choice, and a line through their means."""
    import matplotlib.pyplot as plt
    import numpy as np

    places = _places(sweep.axes[x], axes)
    drawn = 0
    values = sweep.axes[by] if by else [None]
    # Numbers get shades in their order; names, and a line alone, the usual colours.
    shades = (
        plt.get_cmap("viridis")(np.linspace(0.05, 0.85, len(values))) if _are_numbers(values) else [None] * len(values)
    )
    for value, shade in zip(values, shades, strict=True):
        dots: list[tuple[float, float]] = []
        means: list[tuple[float, float]] = []
        for place, at in zip(places, sweep.axes[x], strict=True):
            points = [
                point for point in sweep if point.settings[x] == at and (by is None or point.settings[by] == value)
            ]
            found = [number for number in map(metric, _choices(points)) if number is not None]
            dots += [(place, number) for number in found]
            means += [(place, sum(found) / len(found))] if found else []
        drawn += len(dots)
        label = None if by is None else f"{by} {value}"
        line = axes.plot(*_split(means), marker="o", markersize=5, linewidth=1.8, label=label, color=shade)[0]
        axes.plot(*_split(dots), "o", markersize=3.5, alpha=0.35, color=line.get_color(), markeredgewidth=0)
    if not drawn:
        why = "every point failed" if len(sweep.failures) == len(sweep) else "log-probabilities need --logprobs 1"
        raise ConfigurationError(f"no choice has this metric: {why}")
    if by is not None:
        axes.legend(frameon=False)
    axes.grid(axis="y", alpha=0.25)


def _draw_shares(sweep: Sweep, axes: Axes, x: str) -> None:
    """Draw a bar for every value of `x`: which share of its choices ended how; `error` where none came."""
    places = _places(sweep.axes[x], axes)
    counts = []
    for at in sweep.axes[x]:
        rows = [row for point in sweep if point.settings[x] == at for row in point.rows]
        counts.append(Counter("error" if row is None else row.finish_reason or "none" for row in rows))
    gaps = [abs(right - left) for left, right in pairwise(places)]
    below = [0.0] * len(places)
    for name in sorted({name for count in counts for name in count}, key=lambda name: (name == "error", name)):
        shares = [count[name] / sum(count.values()) for count in counts]
        axes.bar(places, shares, width=0.7 * min(gaps, default=1.0), bottom=below, label=name)
        below = [under + share for under, share in zip(below, shares, strict=True)]
    axes.set_ylabel("share of completions")
    axes.set_ylim(0, 1)
    axes.legend(frameon=False, title="finish_reason", loc="upper left", bbox_to_anchor=(1, 1))


def _places(values: Sequence[Any], axes: Axes) -> list[float]:
    """Return where the values of an axis stand: numbers where they are, others side by side."""
    if _are_numbers(values):
        return [float(value) for value in values]
    axes.set_xticks(range(len(values)), [str(value) for value in values])
    return [float(place) for place in range(len(values))]


def _are_numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)


def _choices(points: Sequence[Point]) -> list[Choice]:
    return [row for point in points for row in point.rows if row is not None]


def _split(pairs: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]
