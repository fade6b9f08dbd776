"""The rows of an input: what a person has, as mappings from column to value, one at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from .errors import PromptError
from .inert import one_line

MISSING = ("NAType", "NaTType")
ROW = "row"
"""The name under which a prompt reaches the row itself, whatever it is."""


@dataclass(frozen=True)
class Rows:
    """An input: its column names where it has any, how many rows there are where that is known, and the rows.

    `rows` gives (label, mapping) in order; the label is the index of a pandas input and the number of the row
    elsewhere. `kind` is `pandas`, `polars` or `python`: a frame of the same kind comes back.
    """

    rows: Iterator[tuple[Any, Mapping[str, Any]]]
    columns: tuple[str, ...]
    count: int | None
    kind: str = "python"
    index: tuple[Any, ...] = (None,)
    """The names of the levels of a pandas index."""
    types: Mapping[str, Any] = field(default_factory=dict)
    """The types of a frame's columns, as its library has them."""
    ahead: tuple[Any, ...] = ()
    """The first element of what comes one by one, where it was looked at for its columns."""

    def first(self) -> Mapping[str, Any] | None:
        """Return the first row, to be looked at: an iterator gives it once more when it is asked for."""
        if self.ahead:
            return _named(self.ahead[0])
        return next((columns for _, columns in self.rows), None)


def read_rows(source: object) -> Rows:
    """Return the rows of a list, a dict of columns, a pandas or polars frame or series, or any iterable.

    An element that is no mapping, such as a text, is the column `row`. Raises PromptError for what has no rows, for
    the frames of other libraries, and for columns that are not told apart by their names.
    """
    kind = _kind_of_table(source)
    if kind is not None:
        return _of_frame(source, kind)
    if isinstance(source, Mapping):
        return _of_columns(source)
    if isinstance(source, (str, bytes)) or not isinstance(source, Iterable):
        raise PromptError(f"-i takes rows: a list, columns, a data frame or an iterable, not {type(source).__name__}")
    if is_frame(source):
        # What comes out of it one by one are the names of its columns.
        raise PromptError(
            f"-i takes data frames of pandas and polars, not those of {type(source).__module__.partition('.')[0]}: "
            "make one of it, such as with its compute() or to_pandas()"
        )
    count = len(source) if isinstance(source, Sequence) else None
    elements = iter(source)
    start = _look(source, elements)
    columns: tuple[str, ...] = (ROW,)
    if start and isinstance(start[0], Mapping):
        # Of what comes one by one only the first is known.
        known = start if count is None else [row for row in source if isinstance(row, Mapping)]
        columns = tuple(dict.fromkeys(str(name) for row in known for name in row))
    return Rows(enumerate(map(_named, _all(start, elements))), columns, count, ahead=start)


_looked_at: list[tuple[Iterator[Any], tuple[Any, ...]]] = []
"""The last iterator whose first element was looked at and not drawn: a cell that has failed before is run again."""


def _look(source: Iterable[Any], elements: Iterator[Any]) -> tuple[Any, ...]:
    start = next((start for looked, start in _looked_at if looked is elements), None) or tuple(islice(elements, 1))
    # What begins anew each time needs no memory.
    _looked_at[:] = [(elements, start)] if elements is source else []
    return start


def _all(start: tuple[Any, ...], elements: Iterator[Any]) -> Iterator[Any]:
    _looked_at[:] = [(looked, ahead) for looked, ahead in _looked_at if looked is not elements]
    yield from start
    yield from elements


def is_frame(source: object) -> bool:
    """Say whether `source` is a table of any library; a series of Dask names its column too, and is none."""
    return hasattr(source, "columns") and hasattr(source, "dtypes") and getattr(source, "ndim", 2) > 1


def _kind_of_table(source: object) -> str | None:
    """Return `pandas` or `polars` for a frame or a series, a subclass of theirs too, without importing either."""
    for ancestor in type(source).__mro__:
        kind = ancestor.__module__.partition(".")[0]
        if kind in ("pandas", "polars") and ancestor.__name__ in ("DataFrame", "Series"):
            return kind
    return None


def _names(columns: Iterable[object]) -> tuple[str, ...]:
    names = tuple(map(str, columns))
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise PromptError(f"two columns are called {shown(twice, 40)!r}: rename one, or it would be lost")
    return names


def _of_frame(source: Any, kind: str) -> Rows:
    shape = source.shape
    if len(shape) == 1:
        name = str(source.name) if source.name else ROW
        labels = source.index if kind == "pandas" else range(shape[0])
        values = ({ROW: value, name: value} for value in source)
        return Rows(zip(labels, values, strict=True), (name,), shape[0], kind, _levels(source), {name: source.dtype})
    columns = _names(source.columns)
    lines = source.itertuples(index=False, name=None) if kind == "pandas" else source.iter_rows()
    labels = source.index if kind == "pandas" else range(shape[0])
    named = (_named(dict(zip(columns, line, strict=True))) for line in lines)
    types = dict(zip(columns, source.dtypes, strict=True))
    return Rows(zip(labels, named, strict=True), columns, shape[0], kind, _levels(source), types)


def _levels(source: Any) -> tuple[Any, ...]:
    index = getattr(source, "index", None)
    return (None,) if index is None or callable(index) else tuple(index.names)


def _of_columns(source: Mapping[Any, Any]) -> Rows:
    columns = _names(source)
    values = list(source.values())
    if not all(isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping)) for value in values):
        raise PromptError("-i takes a dict of columns, each a list of values; one row is a list with one dict")
    listed = [list(value) for value in values]
    if len({len(value) for value in listed}) > 1:
        sizes = ", ".join(f"{name} {len(value)}" for name, value in zip(columns, listed, strict=True))
        raise PromptError(f"the columns are of different lengths: {sizes}")
    named = (_named(dict(zip(columns, line, strict=True))) for line in zip(*listed, strict=True))
    return Rows(enumerate(named), columns, len(listed[0]) if listed else 0)


def is_missing(value: object) -> bool:
    """Say whether a table has no value there: None, NaN, or what pandas has for them."""
    # NA and NaT are of pandas, which need not be there.
    return value is None or (isinstance(value, float) and math.isnan(value)) or type(value).__name__ in MISSING


def shown(value: object, limit: int) -> str:
    """Return a value of a row as one line of at most `limit` characters; what is missing is empty."""
    return "" if is_missing(value) else one_line(str(value), limit)


def _named(element: object) -> dict[str, Any]:
    if isinstance(element, Mapping):
        return {ROW: element, **{str(name): value for name, value in element.items()}}
    return {ROW: element}
