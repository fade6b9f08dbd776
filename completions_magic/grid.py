"""The grid of a sweep: axes of parameters, and their points in a stable order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from .errors import OptionError, nearest, shorten
from .schema import KNOBS

ENDPOINTS = ("model", "profile")
"""What can be swept beside the sampling parameters."""
RANGE = re.compile(r"([^:]+):([^:]+):([^:]+)")
MOST_POINTS = 10_000


@dataclass(frozen=True)
class Axis:
    """A parameter, or `model` or `profile`, and the values that it takes."""

    name: str
    settings: tuple[Any, ...]


def read_axis(name: str, given: object) -> Axis:
    """Return the axis that `a,b,c`, `low:high:count` or a list of values spells; raise OptionError in words."""
    name = name.strip().replace("-", "_")
    known = [*ENDPOINTS, *(knob for knob in KNOBS if knob not in ("stream", "stream_options"))]
    if name not in known:
        raise OptionError(f"--sweep: {shorten(name, 40)!r} cannot be swept{nearest(name, known)}")
    if not isinstance(given, str):
        if not isinstance(given, Iterable):
            raise OptionError(f"--sweep {name} takes a list of values, not {type(given).__name__}")
        values = list(given)
    elif (match := RANGE.fullmatch(given)) and name in KNOBS and KNOBS[name].type in (int, float):
        values = _range(name, *match.groups())
    else:
        values = [value.strip() for value in given.split(",")]
    if not values or "" in values:
        raise OptionError(f"--sweep {name} takes {name}=a,b,c or {name}=low:high:count")
    read = tuple(_value(name, value) for value in values)
    if len({repr(value) for value in read}) < len(read):
        raise OptionError(f"--sweep {name} names a value twice")
    return Axis(name, read)


def _range(name: str, low: str, high: str, count: str) -> list[object]:
    try:
        start, end, points = float(low), float(high), int(count)
    except ValueError:
        raise OptionError(f"--sweep {name} takes {name}=low:high:count, in numbers") from None
    if not 2 <= points <= MOST_POINTS:
        raise OptionError(f"--sweep {name} takes a count from 2 to {MOST_POINTS}, not {points}")
    # Twelve digits: 0.1 three times over is 0.3.
    steps = [float(f"{start + (end - start) * step / (points - 1):.12g}") for step in range(points)]
    return [round(step) for step in steps] if KNOBS[name].type is int else list(steps)


def _value(name: str, value: object) -> Any:
    if name in ENDPOINTS:
        return str(value)
    try:
        return KNOBS[name].convert(value)
    except ValueError as error:
        raise OptionError(f"--sweep {name} {error}") from None


def points(axes: Sequence[Axis]) -> list[dict[str, Any]]:
    """Return every combination, the last axis running fastest; raise OptionError where there are too many."""
    names = [axis.name for axis in axes]
    if len(set(names)) < len(names):
        raise OptionError("--sweep names a parameter twice")
    count = 1
    for axis in axes:
        count *= len(axis.settings)
    if count > MOST_POINTS:
        raise OptionError(f"--sweep makes {count:,} points, and {MOST_POINTS:,} are the most")
    return [dict(zip(names, values, strict=True)) for values in product(*(axis.settings for axis in axes))]
