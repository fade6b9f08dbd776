"""A grid of completions: asked several at a time, kept in the grid's order, as a table, a frame and a plot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from .client import Stream
from .errors import CompletionsError, Interrupted, OptionError, nearest
from .frame import frame_of
from .grid import ENDPOINTS, Axis
from .heatmap import preformatted
from .inert import inert, one_line
from .options import Options
from .pool import run_all
from .record import ASIDE, FOOT, PRE, code, count, plain, reason, tr
from .schema import Choice, Completion, CompletionRequest, row_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

CONCURRENCY = 4
Metric = Callable[[Choice], float | None]


@dataclass
class Point:
    """One place of the grid: the parameters that were swept, the completion, and the error where it failed."""

    settings: dict[str, Any]
    choices: int = 1
    completion: Completion | None = None
    error: CompletionsError | None = None

    @property
    def label(self) -> str:
        """The swept parameters in words."""
        return one_line(" · ".join(f"{name} {shown(value)}" for name, value in self.settings.items()), 80)

    @property
    def rows(self) -> list[Choice | None]:
        """The choices, or as many times None as were asked for where none came."""
        came = self.completion.choices if self.completion is not None else []
        return list(came) or [None] * self.choices


def shown(value: object) -> str:
    """Return a parameter's value as a label has it."""
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return inert(value) if isinstance(value, str) and value.strip() else repr(value)


class Sweep:
    """The completions of a grid: `axes` are its parameters, `points` its places, the last axis running fastest.

    `sweep[0.2, 0.9]` is the completion at these values, in the order of the axes; `sweep.at(temperature=0.2)` the
    part of the grid where a parameter has a value.
    """

    def __init__(self, axes: Sequence[Axis], points: Sequence[Point]) -> None:
        self.axes = {axis.name: axis.settings for axis in axes}
        self.points = list(points)

    def __len__(self) -> int:
        return len(self.points)

    def __iter__(self) -> Iterator[Point]:
        return iter(self.points)

    def __getitem__(self, values: Any) -> Completion:
        """Return the completion at these values; raise KeyError, or the error of the point that failed."""
        wanted = values if isinstance(values, tuple) else (values,)
        found = [point for point in self.points if tuple(point.settings.values()) == wanted]
        if not found:
            known = "; ".join(f"{name} {', '.join(map(shown, axis))}" for name, axis in self.axes.items())
            raise KeyError(f"{values!r}: the axes are {known}")
        if found[0].completion is None:
            raise found[0].error or KeyError(f"{values!r} was not asked")
        return found[0].completion

    def at(self, **values: Any) -> Sweep:
        """Return the points where the named parameters have these values, as a sweep of the other ones."""
        for name, value in values.items():
            if name not in self.axes:
                raise KeyError(f"{name} was not swept{nearest(name, self.axes)}: the axes are {', '.join(self.axes)}")
            if value not in self.axes[name]:
                raise KeyError(f"{name} was not {value!r}: it was {', '.join(map(shown, self.axes[name]))}")
        kept = [point for point in self.points if all(point.settings[name] == value for name, value in values.items())]
        axes = [Axis(name, known) for name, known in self.axes.items() if name not in values]
        rest = [
            Point({axis.name: p.settings[axis.name] for axis in axes}, p.choices, p.completion, p.error) for p in kept
        ]
        return Sweep(axes, rest)

    @property
    def failures(self) -> list[Point]:
        """The points that failed."""
        return [point for point in self.points if point.error is not None]

    def to_frame(self) -> pd.DataFrame:
        """Return a DataFrame, a row a choice: what was swept, index, text, finish_reason, tokens, logprob, error.

        A point that failed has as many rows as choices were asked for, with the error's one line. Needs pandas:
        raises ConfigurationError with the install command without it.
        """
        rows = [_row(point, index, choice) for point in self.points for index, choice in enumerate(point.rows)]
        return frame_of({name: [row.get(name) for row in rows] for name in (*self.axes, *COLUMNS)})

    def plot(self, metric: str | Metric = "length", *, x: str | None = None, by: str | None = None) -> Axes:
        """Draw a metric of every choice against a swept parameter; return matplotlib's axes, to save or to change.

        `metric` is one of METRICS, `finish_reason` for its shares, or a function of a Choice to a number; `x` is
        the parameter along the axis, by default the first; `by` gives a line to each value of another. Raises
        ConfigurationError with the install command where there is no matplotlib.
        """
        from .plot import draw

        return draw(self, metric, x=x, by=by)

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        kept = {"sweep": {name: list(values) for name, values in self.axes.items()}}
        return {"text/plain": self.plain(), "text/html": self.html()}, {"completions_magic": kept}

    def __repr__(self) -> str:
        grid = " x ".join(f"{name} {len(values)}" for name, values in self.axes.items())
        return f"Sweep({grid})"

    def plain(self) -> str:
        """Return every point with its text, as plain text."""
        parts = []
        for point in self.points:
            parts.append(f"[{point.label}]")
            if point.completion is not None and point.completion.choices:
                parts.append(plain(point.completion))
            if point.error is not None:
                parts.append(point.error.headline)
        return "\n".join([*parts, f"({self.footer()})"])

    def html(self) -> str:
        """Return the grid as a table: two axes as rows and columns, any other number as rows."""
        return f'<table>{"".join(self._rows())}</table><p style="{FOOT}">{code(self.footer())}</p>'

    def _rows(self) -> Iterator[str]:
        names = list(self.axes)
        if len(names) == 2:
            columns = self.axes[names[1]]
            yield tr("th", "", *(_label(names[1], value) for value in columns))
            for start in range(0, len(self.points), len(columns)):
                row = self.points[start : start + len(columns)]
                yield tr("td", _label(names[0], row[0].settings[names[0]]), *map(_cell, row))
        else:
            yield tr("th", *map(code, names), "")
            for point in self.points:
                yield tr("td", *(code(shown(value)) for value in point.settings.values()), _cell(point))

    def footer(self) -> str:
        """Return one line: how many points and completions there are, and how many failed."""
        came = sum(len(point.completion.choices) for point in self.points if point.completion is not None)
        failed = len(self.failures)
        return " · ".join(
            [count(len(self), "point"), count(came, "completion"), *([f"{failed} failed"] if failed else [])]
        )


COLUMNS = (*row_of(Choice()), "error")


def _row(point: Point, index: int, choice: Choice | None) -> dict[str, Any]:
    said = {"index": index} if choice is None else row_of(choice)
    return {**point.settings, **said, "error": None if point.error is None else point.error.headline}


def _label(name: str, value: object) -> str:
    return code(f"{name} {shown(value)}")


def _cell(point: Point) -> str:
    parts = [
        f'<pre style="{PRE}">{preformatted(choice.text, first=True)}</pre>'
        f'<span style="{ASIDE}">{code(reason(choice))}</span>'
        for choice in (point.completion.choices if point.completion is not None else [])
    ]
    return "".join([*parts, *([] if point.error is None else [code(point.error.headline)])])


def check_sweep(options: Options) -> None:
    """Raise OptionError where a parameter is both set and swept."""
    axes = {axis.name for axis in options.sweep or []}
    twice = axes & {*options.parameters, *(name for name in ENDPOINTS if getattr(options, name) is not None)}
    if twice:
        raise OptionError(f"{min(twice)} is both set and swept: leave one out")


def at_point(options: Options, settings: Mapping[str, Any]) -> Options:
    """Return the options of one point."""
    endpoint = {name: value for name, value in settings.items() if name in ENDPOINTS}
    parameters = {name: value for name, value in settings.items() if name not in ENDPOINTS}
    return replace(options, sweep=None, out=None, parameters={**options.parameters, **parameters}, **endpoint)


class Board:
    """The requests of a grid at work, `concurrency` at a time; `stop` ends them all, from any thread.

    `request` and `labels` are what a view needs to show them as one: a pane for each choice of each point.
    """

    def __init__(self, points: Sequence[Point], streams: Sequence[Stream], concurrency: int) -> None:
        self._points = points
        self._streams = streams
        self._concurrency = concurrency
        self._reason = "stopped"

    @property
    def request(self) -> CompletionRequest:
        """One request with as many choices as all points have together."""
        most = [stream.request.parameters.max_tokens for stream in self._streams]
        known = [tokens for tokens in most if tokens is not UNSET]
        prompts = [""] * sum(point.choices for point in self._points)
        return CompletionRequest.build(prompts, max_tokens=max(known, default=None))

    @property
    def labels(self) -> list[str]:
        """The name of every pane."""
        return [
            point.label + (f" · {number + 1}/{point.choices}" if point.choices > 1 else "")
            for point in self._points
            for number in range(point.choices)
        ]

    def run(self, show: Callable[[Completion], None]) -> None:
        """Ask until all points have ended; raise Interrupted, with what came kept, when the person interrupts."""
        with ThreadPoolExecutor(self._concurrency, thread_name_prefix="completions-sweep") as pool:
            works = [partial(self._ask, place, show) for place in range(len(self._points))]
            interrupted = run_all(pool, works, self._interrupt)
        if interrupted:
            raise Interrupted

    def _interrupt(self) -> None:
        self._reason = "interrupted"
        self.stop()

    def stop(self) -> None:
        """End what is being asked, and ask nothing more."""
        for stream in self._streams:
            stream.stop()

    def _ask(self, place: int, show: Callable[[Completion], None]) -> None:
        point, stream = self._points[place], self._streams[place]
        first = sum(point.choices for point in self._points[:place])
        ended: str | None = None
        try:
            for chunk in stream:
                show(Completion(choices=[_moved(choice, first) for choice in chunk.choices]))
        except CompletionsError as error:
            point.error, ended = error, "error"
            words = [Choice(error.headline, first + number, "error") for number in range(point.choices)]
            show(Completion(choices=words))
        completion = stream.ended(self._reason if stream.stopped else ended)
        if completion.finished or any(completion.texts):
            point.completion = completion


def _moved(choice: Choice, by: int) -> Choice:
    return Choice(choice.text, choice.index + by, choice.finish_reason, choice.logprobs)
