"""The completions of many rows, in the rows' order: a frame, a record, and what failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from .errors import CompletionsError
from .frame import frame_of, free_name
from .inert import inert, one_line
from .record import FOOT, code, count, tr
from .rows import shown
from .schema import Choice, Completion
from .shelf import Shelf

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 5
"""Rows in the record of a batch; all are in its frame."""
CAUSES = 3
MOST_COLUMNS = 6
PREFIX = "completion_"
OURS = ("text", "finish_reason", "prompt_tokens", "completion_tokens", "error")


@dataclass
class Row:
    """One row: its label, its columns, and what came: a completion, an error, or neither where it was not asked."""

    label: Any
    columns: Mapping[str, Any]
    completion: Completion | None = None
    error: CompletionsError | None = None
    replayed: bool = False
    """Whether it came from a cassette."""

    @property
    def choices(self) -> list[Choice | None]:
        """The choices, or one None where none came."""
        came = self.completion.choices if self.completion is not None else []
        return list(came) or [None]

    @property
    def answered(self) -> bool:
        """Whether anything came, and without an error."""
        return self.error is None and self.completion is not None

    @property
    def tokens(self) -> int:
        """How many tokens were read and generated, as far as the endpoint says."""
        usage = self.completion.usage if self.completion is not None else None
        return 0 if usage is None else usage.total_tokens


@dataclass
class Batch:
    """The rows of an input with their completions, in order; `columns` are the input's own.

    `rows` is a list, or a Shelf on disk where the rows come from an iterator and the answers go to a cassette.
    """

    columns: tuple[str, ...] = ()
    kind: str = "python"
    rows: list[Row] | Shelf = field(default_factory=list)
    several: bool = False
    """Whether rows have more than one choice each, however many came."""
    ended: str = ""
    """Why not every row was asked: `stopped`, `interrupted`, `the budget is spent`, or how the endpoint failed."""
    index: tuple[Any, ...] = (None,)
    """The names of the levels of a pandas input's index."""
    types: Mapping[str, Any] = field(default_factory=dict)
    """The types of the columns of an input that is a frame."""

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __getitem__(self, number: int) -> Row:
        row: Row = self.rows[number]
        return row

    @property
    def texts(self) -> list[str | None]:
        """The first choice's text of every row, None where there is none."""
        return [row.completion.text if row.completion is not None else None for row in self]

    @property
    def failures(self) -> list[Row]:
        """The rows that failed."""
        return [row for row in self if row.error is not None]

    @property
    def missing(self) -> list[Row]:
        """The rows that were not asked, or not to their end, for the reason in `ended`."""
        return [row for row in self if row.error is None and not _ended(row)]

    def to_frame(self) -> pd.DataFrame:
        """Return the input's columns and index, then text, finish_reason, prompt_tokens, completion_tokens, error.

        A row that was not asked says so as its error. A row a choice, with the column `choice` where any row has
        several; a name that the input has already gets `completion_` before it. A polars input gives a polars frame.
        Needs pandas, or polars for a polars input: raises ConfigurationError with the install command without it.
        """
        several = self.several or any(len(row.choices) > 1 for row in self)
        lines = [line for row in self for line in self._lines(row, several=several)]
        ours = (*(["choice"] if several else []), *OURS)
        names = [*self.columns, *map(self._name, ours)]
        columns = {name: [line[name] for line in lines] for name in names}
        labels = [row.label for row in self for _ in row.choices]
        return frame_of(columns, labels, kind=self.kind, levels=self.index, types=self.types)

    def _lines(self, row: Row, *, several: bool) -> Iterator[dict[str, Any]]:
        usage = row.completion.usage if row.completion is not None else None
        for number, choice in enumerate(row.choices):
            came = {
                "text": None if choice is None else choice.text,
                "finish_reason": None if choice is None else choice.finish_reason,
                "prompt_tokens": None if usage is None else usage.prompt_tokens,
                "completion_tokens": None if usage is None else usage.completion_tokens,
                "error": self._said(row),
            }
            numbered = {"choice": number} if several else {}
            given = {name: row.columns.get(name) for name in self.columns}
            yield {**given, **{self._name(name): value for name, value in {**numbered, **came}.items()}}

    def _said(self, row: Row) -> str | None:
        if row.error is not None:
            return row.error.headline
        return "not asked" + (f": {self.ended}" if self.ended else "") if row.completion is None else None

    def _name(self, name: str) -> str:
        return free_name(name, self.columns, PREFIX)

    def causes(self) -> list[str]:
        """Return why rows failed, the most frequent kind first: how often, and the first of them."""
        return causes(row.error for row in self)

    def footer(self) -> str:
        """Return one line: how many rows, how many failed or were not asked, and the tokens."""
        tokens = failed = missing = 0
        for row in self:
            failed += row.error is not None
            missing += row.error is None and not _ended(row)
            tokens += row.tokens
        parts = [count(len(self), "row")]
        parts += [f"{failed:,} failed"] if failed else []
        if missing:
            parts.append(f"{missing:,} not done" + (f": {self.ended}" if self.ended else ""))
        return " · ".join([*parts, *([count(tokens, "token")] if tokens else [])])

    def plain(self) -> str:
        """Return the first rows, the causes of failures and the footer, as plain text."""
        lines = [f"[{row.label}] {one_line(_first(row), 100)}" for row in islice(self, SHOWN)]
        more = [f"… {len(self) - SHOWN:,} more"] if len(self) > SHOWN else []
        return inert("\n".join([*lines, *more, *self.causes(), f"({self.footer()})"]))

    def html(self) -> str:
        """Return the first rows as a table, the causes of failures and the footer, as inert HTML."""
        names = [name for name in self.columns if name != "row"][:MOST_COLUMNS]
        head = tr("th", "", *map(code, names), code("text"))
        rows = [
            tr(
                "td",
                code(str(row.label)),
                *(code(shown(row.columns.get(name), 80)) for name in names),
                code(one_line(_first(row), 160)),
            )
            for row in islice(self, SHOWN)
        ]
        notes = [*([f"… {len(self) - SHOWN:,} more"] if len(self) > SHOWN else []), *self.causes(), self.footer()]
        return f"<table>{head}{''.join(rows)}</table>" + "".join(
            f'<p style="{FOOT}">{code(note)}</p>' for note in notes
        )

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": self.plain(), "text/html": self.html()}

    def __repr__(self) -> str:
        return f"Batch({self.footer()})"


def causes(errors: Iterable[CompletionsError | None]) -> list[str]:
    """Return why rows failed, of the errors of all: how often each kind, the most frequent first, and its first one."""
    firsts: dict[str, str] = {}
    counted: Counter[str] = Counter()
    for number, error in enumerate(errors):
        if error is not None:
            kind = type(error).__name__
            counted[kind] += 1
            firsts.setdefault(kind, f"first in row {number}: {error}")
    return [f"{times} x {kind}, {firsts[kind]}" for kind, times in counted.most_common(CAUSES)]


def _first(row: Row) -> str:
    if row.error is not None:
        return type(row.error).__name__  # its words stand below, among the causes, and in the frame
    return row.completion.text if row.completion is not None else "not asked"


def _ended(row: Row) -> bool:
    return row.completion is not None and row.completion.finished
