"""Many prompts: a request a row, several at a time, the answers in the rows' order."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .client import Client, Stream
from .errors import BudgetError, CompletionsError, ConfigurationError, Interrupted, OptionError
from .inert import inert, one_line
from .options import Options
from .pace import Pace, wait_all
from .record import FOOT, code, count, tr
from .rows import Rows
from .schema import Choice, Completion, CompletionRequest

if TYPE_CHECKING:
    import pandas as pd

WORKERS = 8
SHOWN = 5
"""Rows in the record of a batch; all are in its frame."""
CAUSES = 3
MOST_COLUMNS = 6
OURS = ("text", "finish_reason", "prompt_tokens", "completion_tokens", "error")


@dataclass
class Row:
    """One row: its label, its columns, and what came: a completion, an error, or neither where it was not asked."""

    label: Any
    columns: Mapping[str, Any]
    completion: Completion | None = None
    error: CompletionsError | None = None

    @property
    def choices(self) -> list[Choice | None]:
        """The choices, or one None where none came."""
        came = self.completion.choices if self.completion is not None else []
        return list(came) or [None]


@dataclass
class Batch:
    """The rows of an input with their completions, in order; `columns` are the input's own."""

    columns: tuple[str, ...] = ()
    kind: str = "python"
    rows: list[Row] = field(default_factory=list)
    ended: str = ""
    """Why not every row was asked: `stopped`, `interrupted` or `the budget is spent`."""

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __getitem__(self, number: int) -> Row:
        return self.rows[number]

    @property
    def texts(self) -> list[str | None]:
        """The first choice's text of every row, None where there is none."""
        return [row.completion.text if row.completion is not None else None for row in self.rows]

    @property
    def failures(self) -> list[Row]:
        """The rows that failed."""
        return [row for row in self.rows if row.error is not None]

    @property
    def missing(self) -> list[Row]:
        """The rows that were not asked, or not to their end: after Stop, an interrupt, or a spent budget."""
        return [row for row in self.rows if row.error is None and not _ended(row)]

    def to_frame(self) -> pd.DataFrame:
        """Return the input's columns and index, then text, finish_reason, prompt_tokens, completion_tokens, error.

        A row a choice, with the column `choice` where any row has several; a name that the input has already gets
        `completion_` before it. A polars input gives a polars frame. Needs pandas, or polars for a polars input:
        raises ConfigurationError with the install command without it.
        """
        lines = [line for row in self.rows for line in self._lines(row)]
        names = list(lines[0]) if lines else [*self.columns, *map(self._name, OURS)]
        columns = {name: [line[name] for line in lines] for name in names}
        labels = [row.label for row in self.rows for _ in row.choices]
        try:
            if self.kind == "polars":
                import polars as pl

                return pl.DataFrame(columns, strict=False)
            import pandas as pd
        except ImportError:
            raise ConfigurationError("a frame needs pandas: pip install 'completions-magic[frame]'") from None
        return pd.DataFrame(columns, index=labels, columns=names)

    def _lines(self, row: Row) -> Iterator[dict[str, Any]]:
        several = any(len(row.choices) > 1 for row in self.rows)
        usage = row.completion.usage if row.completion is not None else None
        for number, choice in enumerate(row.choices):
            came = {
                "text": None if choice is None else choice.text,
                "finish_reason": None if choice is None else choice.finish_reason,
                "prompt_tokens": None if usage is None else usage.prompt_tokens,
                "completion_tokens": None if usage is None else usage.completion_tokens,
                "error": None if row.error is None else f"{type(row.error).__name__}: {row.error}",
            }
            numbered = {"choice": number} if several else {}
            given = {name: row.columns.get(name) for name in self.columns}
            yield {**given, **{self._name(name): value for name, value in {**numbered, **came}.items()}}

    def _name(self, name: str) -> str:
        return f"completion_{name}" if name in self.columns else name

    def causes(self) -> list[str]:
        """Return why rows failed, the most frequent kind first: how often, and the first of them."""
        firsts: dict[str, str] = {}
        counted: Counter[str] = Counter()
        for number, row in enumerate(self.rows):
            if row.error is not None:
                kind = type(row.error).__name__
                counted[kind] += 1
                firsts.setdefault(kind, f"first in row {number}: {row.error}")
        return [f"{times} x {kind}, {firsts[kind]}" for kind, times in counted.most_common(CAUSES)]

    def footer(self) -> str:
        """Return one line: how many rows, how many failed or were not asked, and the tokens."""
        usages = [row.completion.usage for row in self.rows if row.completion is not None]
        tokens = sum(usage.total_tokens for usage in usages if usage is not None)
        parts = [count(len(self), "row")]
        parts += [f"{len(self.failures):,} failed"] if self.failures else []
        if self.missing:
            parts.append(f"{len(self.missing):,} not done" + (f": {self.ended}" if self.ended else ""))
        return " · ".join([*parts, *([count(tokens, "token")] if tokens else [])])

    def plain(self) -> str:
        """Return the first rows, the causes of failures and the footer, as plain text."""
        lines = [f"[{row.label}] {one_line(_first(row), 100)}" for row in self.rows[:SHOWN]]
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
                *(code(one_line(str(row.columns.get(name, "")), 80)) for name in names),
                code(one_line(_first(row), 160)),
            )
            for row in self.rows[:SHOWN]
        ]
        notes = [*([f"… {len(self) - SHOWN:,} more"] if len(self) > SHOWN else []), *self.causes(), self.footer()]
        return f"<table>{head}{''.join(rows)}</table>" + "".join(
            f'<p style="{FOOT}">{code(note)}</p>' for note in notes
        )

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": self.plain(), "text/html": self.html()}

    def __repr__(self) -> str:
        return f"Batch({self.footer()})"


def _first(row: Row) -> str:
    if row.error is not None:
        return f"{type(row.error).__name__}: {row.error}"
    return row.completion.text if row.completion is not None else "not asked"


def _ended(row: Row) -> bool:
    return row.completion is not None and row.completion.finished


def check_batch(options: Options) -> None:
    """Raise OptionError where an option and -i do not go together."""
    if options.form not in (None, "completion", "frame"):
        raise OptionError(f"-i binds a Batch, or with --as frame its frame, not {options.form}")
    given = {
        "--bg": options.background,
        "--dry-run": options.dry_run,
        "--extract": options.extract,
        "--sample": options.sample,
        "--prompt": options.prompt is not None,
    }
    alone = [flag for flag, value in given.items() if value]
    if alone:
        raise OptionError(f"{alone[0]} is for one completion: it does not go with -i")


class Asking:
    """The rows of a batch at work, `concurrency` at a time, each worker with a connection of its own.

    `request` makes a row's request. `stop` ends it all, from any thread; what was under way is kept as far as it
    came.
    """

    def __init__(
        self,
        rows: Rows,
        request: Callable[[Mapping[str, Any]], CompletionRequest],
        client: Client,
        *,
        concurrency: int = WORKERS,
        pace: Pace | None = None,
    ) -> None:
        self.batch = Batch(rows.columns, rows.kind)
        self.pace = pace or Pace()
        self._rows = rows
        self._request = request
        self._client = client
        self._concurrency = concurrency
        self._again: Counter[bytes] = Counter()
        self._open: set[Stream] = set()
        self._lock = threading.Lock()
        self._reason = "stopped"

    def run(self, on_end: Callable[[Row], object] = id) -> Batch:
        """Ask until every row has ended or the budget is spent; raise Interrupted when the person interrupts.

        `on_end` hears of every row that has ended, from several threads.
        """
        with ThreadPoolExecutor(self._concurrency, thread_name_prefix="completions-batch") as pool:
            workers = [pool.submit(copy_context().run, self._work, on_end) for _ in range(self._concurrency)]
            try:
                wait_all(workers)
            except KeyboardInterrupt:
                self._reason = "interrupted"
                self.stop()
                wait_all(workers)
        for worker in workers:
            worker.result()
        if self._rows.count is not None:
            # What was not asked is in the frame all the same.
            self.batch.rows += [Row(label, columns) for label, columns in self._rows.rows]
        if self.pace.stopped.is_set():
            self.batch.ended = self._reason
        if self._reason == "interrupted":
            raise Interrupted
        return self.batch

    def stop(self) -> None:
        """End what is being asked, and ask nothing more."""
        self.pace.stopped.set()
        with self._lock:
            streams = list(self._open)
        for stream in streams:
            stream.stop()

    def _work(self, on_end: Callable[[Row], object]) -> None:
        with self._client.paced(self.pace) as client:
            while not self.pace.stopped.is_set():
                with self._lock:
                    label, columns = next(self._rows.rows, (None, None))
                    if columns is None:
                        return
                    row = Row(label, columns)
                    self.batch.rows.append(row)
                    stream = self._begin(row, client)
                if stream is not None:
                    self._read(row, stream)
                on_end(row)

    def _begin(self, row: Row, client: Client) -> Stream | None:
        """Return the stream of a row's answer; its ordinal among equal requests says which recording is its own."""
        try:
            request = self._request(row.columns)
            sample = None
            if client.cassette is not None:
                digest = hashlib.sha256(request.encode()).digest()
                self._again[digest] += 1
                sample = self._again[digest]
        except CompletionsError as error:
            row.error = error
            return None
        stream = client.send(request, sample=sample)
        self._open.add(stream)
        return stream

    def _read(self, row: Row, stream: Stream) -> None:
        ended: str | None = None
        try:
            for _ in stream:
                pass
        except BudgetError:
            if not self.pace.stopped.is_set():
                self._reason = "the budget is spent"
            self.pace.stopped.set()
        except CompletionsError as error:
            row.error, ended = error, "error"
        completion = stream.ended(self._reason if stream.stopped else ended)
        if completion.finished or any(completion.texts):
            row.completion = completion
        if completion.usage is not None and not stream.replayed:
            self.pace.spend(completion.usage.total_tokens)
        with self._lock:
            self._open.discard(stream)
