"""Rows of the table of results: what was measured, beside what, the ratio and the goal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line: `ours` and `other` as texts with units; `ratio` is what `goal`, the most it may be, is held against."""

    what: str
    ours: str
    beside: str = ""
    other: str = ""
    ratio: float | None = None
    goal: float | None = None
    wanted: str = ""
    is_held: bool | None = None

    @property
    def cells(self) -> list[str]:
        """The cells of the line."""
        held = self.is_held
        if self.goal is not None and self.ratio is not None:
            held = self.ratio <= self.goal
        said = "" if held is None else "yes" if held else "**no**"
        goal = self.wanted or in_short(self.goal)
        return [self.what, self.ours, self.beside, self.other, in_short(self.ratio), goal, said]


def absolute(what: str, value: float, goal: float, unit: Callable[[float], str]) -> Row:
    """Return a row that is held against a figure and not against a ratio."""
    return Row(what, unit(value), wanted=unit(goal), is_held=value <= goal)


HEAD = ["what", "ours", "beside", "there", "ratio", "goal, at most", "held"]


def in_short(ratio: float | None) -> str:
    """Return a ratio as people say it: 1.2, 1/40."""
    if ratio is None:
        return ""
    return f"1/{1 / ratio:.0f}" if 0 < ratio < 0.26 else f"{ratio:.2f}".rstrip("0").rstrip(".")


def micro(seconds: float) -> str:
    """Return seconds as microseconds."""
    return f"{seconds * 1e6:,.{1 if seconds < 1e-4 else 0}f} µs"


def milli(seconds: float) -> str:
    """Return seconds as milliseconds."""
    return f"{seconds * 1e3:,.{2 if seconds < 1e-2 else 0}f} ms"


def megabytes(size: float) -> str:
    """Return bytes as megabytes."""
    return f"{size / 2**20:,.1f} MB"


def beside(
    what: str, ours: float, others: dict[str, float], goals: dict[str, float], unit: Callable[[float], str] = micro
) -> list[Row]:
    """Return a row for each of `others`, which are costs like `ours`, by name; `goals` are ratios by the same names."""
    return [Row(what, unit(ours), name, unit(other), ours / other, goals.get(name)) for name, other in others.items()]


def markdown(sections: dict[str, list[Row]]) -> str:
    """Return all rows as one table, the sections' titles as lines of their own."""
    lines = [HEAD, ["---"] * len(HEAD)]
    for title, rows in sections.items():
        lines += [[f"**{title}**", *[""] * (len(HEAD) - 1)], *(row.cells for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
