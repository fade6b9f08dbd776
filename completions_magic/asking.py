"""Many prompts at work: rows become requests, several of them under way at a time."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from numbers import Integral
from typing import Any

import msgspec

from .batch import Batch, Row
from .breaker import CircuitBreaker
from .client import Client, Stream
from .errors import BudgetError, CompletionsError, ConfigurationError, Interrupted, OptionError, StreamError
from .pace import Pace
from .pool import run_all
from .rows import Rows
from .schema import Choice, Completion, CompletionRequest, check_prompt
from .shelf import Shelf, Tally

WORKERS = 8
SPENT = "the budget is spent"
Request = Callable[[Mapping[str, Any]], CompletionRequest]


@dataclass
class Question:
    """A request and the rows that it is for, by their numbers; `sample` says which recording is its own.

    `turn` is its number with the breaker.
    """

    rows: dict[int, Row]
    request: CompletionRequest
    sample: int | None = None
    turn: int = 0

    def settle(self, completion: Completion, error: CompletionsError | None) -> None:
        """Give each row its part of the answer; the first of several has the usage of all."""
        each = self.request.choices // len(self.rows)
        for place, row in enumerate(self.rows.values()):
            part = completion if len(self.rows) == 1 else _part(completion, place * each, each)
            row.error = error
            if part.finished or any(part.texts):
                row.completion = part


def _part(completion: Completion, first: int, count: int) -> Completion:
    choices = [
        Choice(choice.text, choice.index - first, choice.finish_reason, choice.logprobs, choice.extra)
        for choice in completion.choices
        if first <= choice.index < first + count
    ]
    return msgspec.structs.replace(completion, choices=choices, usage=None if first else completion.usage)


class Asking:
    """The rows of a batch at work, `concurrency` at a time, each worker with a connection of its own.

    `request` makes a row's request; `pack` rows go as the prompts of one. `stop` ends it all, from any thread; what
    was under way is kept as far as it came. Where the endpoint fails row after row no more are asked. With rows of
    unknown number and a cassette, memory is bounded. Raises ConfigurationError for less than one at a time.
    """

    def __init__(
        self,
        rows: Rows,
        request: Request,
        client: Client,
        *,
        concurrency: int = WORKERS,
        pack: int = 1,
        pace: Pace | None = None,
    ) -> None:
        numbers: dict[str, object] = {"concurrency": concurrency, "pack": pack}
        for name, number in numbers.items():
            if not isinstance(number, Integral) or number < 1:
                raise ConfigurationError(f"{name} takes a whole number from 1, not {str(number)[:40]!r}")
        on_disk = rows.count is None and client.cassette is not None
        self.batch = Batch(rows.columns, rows.kind, Shelf() if on_disk else [], index=rows.index, types=rows.types)
        self.pace = pace or Pace()
        self.breaker = CircuitBreaker(2 * concurrency)
        self._rows = rows
        self._request = request
        self._client = client
        self._concurrency = concurrency
        self._pack = pack
        self._asked = None if client.cassette is None else Tally()
        self._open: set[Stream] = set()
        self._lock = threading.Lock()
        self._drawing = threading.Lock()
        self._reason = "stopped"
        self._asks_no_more = False
        self._on_end: Callable[[Row], object] = id

    @property
    def result(self) -> Batch:
        """What came so far."""
        return self.batch

    @property
    def requests(self) -> Iterable[Row]:
        """What was asked so far, in order: a row each."""
        return self.batch

    @property
    def count(self) -> int | None:
        """How many rows there are, where that is known."""
        return self._rows.count

    def run(self, on_end: Callable[[Row], object] = id) -> Batch:
        """Ask until every row has ended, or more are of no use; raise Interrupted when the person interrupts.

        They are when the budget is spent, or the breaker has a reason. `on_end` hears of every row that has ended, from
        any thread.
        """
        self._on_end = on_end
        interrupted = self._ask_all()
        if self._rows.count is not None:
            # What was not asked is in the frame all the same.
            for label, columns in self._rows.rows:
                self.batch.rows.append(Row(label, columns))
        if self._is_over:
            again = self._asked is not None and self._rows.count is not None
            self.batch.ended = self._reason + ("; the same cell asks for the rest" if again else "")
        if interrupted:
            interrupt = Interrupted()
            interrupt.batch = self.batch
            raise interrupt
        return self.batch

    @property
    def _is_over(self) -> bool:
        """Say whether nothing more is to be asked; those that wait for their turn still go, unless it was stopped."""
        return self._asks_no_more or self.pace.stopped.is_set()

    def stop(self) -> None:
        """End what is being asked, and ask nothing more."""
        self.pace.stopped.set()
        with self._lock:
            streams = list(self._open)
        for stream in streams:
            stream.stop()

    def _interrupt(self) -> None:
        self._reason = "interrupted"
        self.stop()

    def _ask_all(self) -> bool:
        """Ask until all is done or stopped; say whether the person has interrupted."""
        with ThreadPoolExecutor(self._concurrency, thread_name_prefix="completions-batch") as pool:
            return run_all(pool, [self._work] * self._concurrency, self._interrupt)

    def _work(self) -> None:
        with self._client.paced(self.pace) as client:
            while not self._is_over:
                question = self._draw()
                if question is None:
                    return
                self._read(question, client.send(question.request, sample=question.sample))

    def _draw(self) -> Question | None:
        """Return the next request, or None at the end; rows whose prompt cannot be made have ended."""
        while True:
            # A lock of its own: where the next row is long in coming, those that came are asked, and end, meanwhile.
            with self._drawing:
                first = len(self.batch.rows)
                rows = [Row(label, columns) for label, columns in islice(self._rows.rows, self._pack)]
                for row in rows:
                    self.batch.rows.append(row)
                question = self._question(dict(enumerate(rows, first)))
                if question is not None:
                    # With its rows: who is held up between the two would be overtaken unseen.
                    with self._lock:
                        question.turn = self.breaker.begin()
            self._end({number: row for number, row in enumerate(rows, first) if row.error is not None})
            if question is not None or not rows:
                return question

    def _question(self, rows: Mapping[int, Row]) -> Question | None:
        """Return the request of these rows; its ordinal among equal requests says which recording is its own."""
        requests: dict[int, CompletionRequest] = {}
        for number, row in rows.items():
            try:
                request = self._request(row.columns)
                request.encode()
            except CompletionsError as error:
                row.error = error
            else:
                requests[number] = request
        if not requests:
            return None
        request = packed(list(requests.values()))
        ordinal = None if self._asked is None else self._asked.add(hashlib.sha256(request.encode()).digest())
        return Question({number: rows[number] for number in requests}, request, ordinal)

    def _read(self, question: Question, stream: Stream) -> None:
        failure: CompletionsError | None = None
        with self._lock:
            self._open.add(stream)
        if self.pace.stopped.is_set():
            stream.stop()
        try:
            for _ in stream:
                pass
        except BudgetError:
            self._ask_no_more(SPENT)
        except CompletionsError as error:
            failure = error
        ended = self._reason if stream.stopped else None if failure is None else "error"
        completion = stream.ended(ended)
        if completion.usage is not None and not stream.replayed:
            self.pace.spend(completion.usage.total_tokens)
        for row in question.rows.values():
            row.replayed = stream.replayed
        with self._lock:
            self._open.discard(stream)
            # Both at once: in between, an answer that took longer than others' refusals would count for nothing.
            self.breaker.end(question.turn)
            if not stream.replayed:
                self.breaker.hear(completion, failure)
        self._heed()
        self._settle(question, completion, failure)

    def _heed(self) -> None:
        """Ask no more where the breaker says why."""
        if self.breaker.reason:
            self._ask_no_more(self.breaker.reason)

    def _ask_no_more(self, reason: str) -> None:
        """Let what is under way end, and begin nothing new; the first reason counts."""
        if not self._is_over:
            self._reason = reason
            self._asks_no_more = True

    def _settle(self, question: Question, completion: Completion, failure: CompletionsError | None) -> None:
        """Give the rows of a request what came of it."""
        question.settle(completion, failure)
        answered = {choice.index for choice in completion.choices}
        if failure is None and completion.finished and len(answered) < question.request.choices:
            for row in question.rows.values():
                if row.completion is None:
                    row.error = StreamError(
                        f"{self._client.name} answered {len(answered)} of {len(question.rows)} prompts in one request: "
                        "leave out --pack",
                        endpoint=self._client.name,
                    )
        self._end(question.rows)

    def _end(self, rows: Mapping[int, Row]) -> None:
        for number, row in rows.items():
            self.batch.rows[number] = row
            self._on_end(row)


def packed(requests: Sequence[CompletionRequest]) -> CompletionRequest:
    """Return one request with the prompts of all; raise OptionError where they differ in more than that."""
    first = requests[0]
    if len(requests) == 1:
        return first
    if any(msgspec.structs.replace(request, prompt=first.prompt) != first for request in requests):
        raise OptionError("--pack sends one suffix for all its prompts, and {{fill}} gives each its own")
    return msgspec.structs.replace(first, prompt=check_prompt([request.prompt for request in requests]))
