"""Many prompts past one machine: chunks of rows for any executor's workers, one writer for what comes back."""

from __future__ import annotations

import atexit
import itertools
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from .asking import SPENT, WORKERS, Asking, Question, Request
from .breaker import CircuitBreaker
from .cassette import Cassette
from .client import Client
from .errors import BudgetError, CassetteError, CompletionsError, ConfigurationError, ProfileError, WorkerError
from .pace import Pace
from .pool import run_all, wait_some
from .profiles import Profile
from .rows import Rows
from .schema import Completion, CompletionRequest
from .tape import Asked, Interaction, Tape

TRIES = 3
"""How often a chunk is given to a worker."""
WORTH = 20
"""A chunk takes so many times as long as its way there and back: the engine costs at most a twentieth."""
LONGEST_CHUNK = 5.0
"""Seconds: what is lost with a worker, and how long Stop takes at most where answers are quick."""


@dataclass(frozen=True)
class Order:
    """What a worker needs to make a client of its own: everything but the key, which its own environment holds."""

    profile: Profile
    settings: Mapping[str, Any]
    concurrency: int
    records: bool

    @classmethod
    def of(cls, client: Client, concurrency: int) -> Order:
        """Return the order for clients like this one; raise ConfigurationError where it cannot be made elsewhere."""
        endpoint = client.endpoint
        if endpoint.transport is not None:
            raise ConfigurationError("workers make connections of their own: a transport cannot be sent to them")
        if endpoint.key is not None and client.profile.api_key_env is None:
            raise ConfigurationError(
                "a key is not sent to workers: name the environment variable that holds it there (api_key_env)"
            )
        return cls(
            # The rows' requests hold the parameters already, and that the key may go there was settled here.
            replace(client.profile, parameters={}, source="executor"),
            client.settings,
            concurrency,
            client.cassette is not None,
        )

    def client(self) -> Client:
        """Return this process's client for the order; its connections are kept."""
        known = repr(self)
        if known not in _clients:
            _clients[known] = Client(
                self.profile,
                **self.settings,
                cassette=Cassette(Reel(), record="all") if self.records else None,
                pace=Pace(),
            )
            atexit.register(_clients[known].close)
        return _clients[known]


class Threads(threading.local):
    """The threads that each of a worker's own threads asks with: kept, for a chunk may take less than to start them."""

    def __init__(self) -> None:
        self._pools: dict[int, ThreadPoolExecutor] = {}

    def of(self, count: int) -> ThreadPoolExecutor:
        """Return so many threads."""
        if count not in self._pools:
            self._pools[count] = ThreadPoolExecutor(count, thread_name_prefix="completions-worker")
        return self._pools[count]


_clients: dict[str, Client] = {}
_threads = Threads()
_numbers = itertools.count(1)


class Reel(Tape):
    """A tape without a file: holds an interaction until it is taken to the one writer."""

    def __init__(self) -> None:
        super().__init__("reel")
        self._held: dict[int, Interaction] = {}

    def add(self, interaction: Interaction, *, again: bool = False) -> None:  # noqa: ARG002  # as a tape's
        """Hold an interaction by its call."""
        self._held[interaction.call] = interaction

    def release(self, request: Asked, call: int) -> None:
        """Hold nothing for this call."""

    def prepare(self) -> None:
        """Write nothing."""

    def take(self, call: int) -> Interaction | None:
        """Return what is held for this call, and hold it no longer."""
        return self._held.pop(call, None)


@dataclass
class Outcome:
    """What came of a request: a completion, as far as it came, an error, and what a cassette keeps."""

    completion: Completion
    error: CompletionsError | None
    interaction: Interaction | None = None


@dataclass
class Report:
    """What came of a chunk, how long the worker took, and for how long the endpoint wants a rest, in seconds.

    An outcome is None where the request was not sent, for the `reason`.
    """

    outcomes: list[Outcome | None]
    seconds: float
    rest: float
    reason: str = ""


def answer(order: Order, requests: Sequence[CompletionRequest], breaker: CircuitBreaker) -> Report:
    """Ask these requests, several at a time: what a worker runs. Raises ProfileError where it lacks the key.

    `breaker` has heard what came of rows before these.
    """
    began = time.monotonic()
    client = order.client()
    lock = threading.Lock()

    def ask(request: CompletionRequest) -> Outcome | None:
        with lock:
            if breaker.reason:
                return None
            number = breaker.begin()
        outcome = _outcome(client, request)
        with lock:
            breaker.end(number)
            breaker.hear(outcome.completion, outcome.error)
        return outcome

    outcomes = list(_threads.of(order.concurrency).map(ask, requests))
    pace = client.pace
    return Report(outcomes, time.monotonic() - began, 0.0 if pace is None else pace.rest, breaker.reason)


def _outcome(client: Client, request: CompletionRequest) -> Outcome:
    call = next(_numbers)
    stream = client.send(request, sample=call)
    failure: CompletionsError | None = None
    try:
        for _ in stream:
            pass
    except CompletionsError as error:
        failure = error
    reel = client.cassette.tape if client.cassette is not None else None
    interaction = reel.take(call) if isinstance(reel, Reel) else None
    return Outcome(stream.ended(None if failure is None else "error"), failure, interaction)


class Chunk:
    """Requests that travel together; `tries` counts the workers that were given them."""

    def __init__(self, questions: list[Question]) -> None:
        self.questions = questions
        self.tries = 0
        self.sent = 0.0


class Spreading(Asking):
    """The rows of a batch at work on an executor's workers, `concurrency` at a time in each chunk.

    `executor` is any concurrent.futures.Executor; with one of processes each worker makes its own client and reads
    its own key. Only this process writes the cassette. A chunk whose worker is lost goes to another one.
    Raises ConfigurationError for a client that cannot be made elsewhere.
    """

    def __init__(
        self,
        rows: Rows,
        request: Request,
        client: Client,
        *,
        executor: Executor,
        concurrency: int = WORKERS,
        pack: int = 1,
        pace: Pace | None = None,
    ) -> None:
        super().__init__(rows, request, client, concurrency=concurrency, pack=pack, pace=pace)
        self._order = Order.of(client, concurrency)
        if client.cassette is not None and client.cassette.record != "none":
            client.cassette.tape.prepare()
        self._executor = executor
        self._under_way: dict[Future[Any], Chunk] = {}
        self._most = 2
        self._size = concurrency
        self._answered = 0.0
        self._way = float("inf")  # the shortest way there and back that was seen, in seconds

    def _ask_all(self) -> bool:
        # In a thread of its own, so that an interrupt never falls between an answer and its place on disk. After one
        # nothing more is sent; what is under way was paid for, and comes in.
        with ThreadPoolExecutor(1, thread_name_prefix="completions-spread") as pool:
            return run_all(pool, [self._drive], self._interrupt)

    def _drive(self) -> None:
        while True:
            self._send()
            if not self._under_way:
                return
            done = wait_some(self._under_way, FIRST_COMPLETED).done
            for future in [one for one in self._under_way if one in done]:  # in the order that they were sent
                self._take_in(future, self._under_way.pop(future))

    def _send(self) -> None:
        while not self._is_over and len(self._under_way) < self._most:
            questions = self._questions()
            if not questions:
                return
            self._submit(Chunk(questions))

    def _questions(self) -> list[Question]:
        """Return the requests of the next chunk; what the cassette answers is answered here."""
        questions: list[Question] = []
        size = self._size if self.pace.max_rps is None else 1
        while len(questions) < size and not self._is_over:
            question = self._draw()
            if question is None:
                break
            if self._is_answered_here(question):
                self._read(question, self._client.send(question.request, sample=question.sample))
                continue
            self.breaker.end(question.turn)  # which chunk is being answered is told by when it was sent
            try:
                self.pace.turn()
            except BudgetError:
                self._ask_no_more(SPENT)
                break
            questions.append(question)
        return questions

    def _is_answered_here(self, question: Question) -> bool:
        """Say whether the cassette has the answer, or cannot be read, which is this row's failure."""
        try:
            return question.sample is not None and not self._client.asks(question.request, question.sample)
        except CassetteError:
            return True

    def _submit(self, chunk: Chunk) -> None:
        chunk.tries += 1
        chunk.sent = time.monotonic()
        requests = [question.request for question in chunk.questions]
        self.breaker.most = 2 * self._concurrency * self._most
        try:
            future = self._executor.submit(answer, self._order, requests, replace(self.breaker))
        except Exception as error:  # noqa: BLE001  # an executor's own: it is broken, or was shut down
            self._lose(chunk, error)
        else:
            self._under_way[future] = chunk

    def _take_in(self, future: Future[Any], chunk: Chunk) -> None:
        """Settle the rows of a chunk that has come back, or send it once more."""
        error = _unwrapped(future.exception())
        if error is not None:
            if isinstance(error, CompletionsError):
                # A worker that cannot make a client is the quickest of all: it would get, and fail, most of the rows.
                there = type(error)(f"{error.message} (in the workers' environment, and start them anew)")
                self._lose(chunk, there)
                self._ask_no_more(f"a worker fails every row: {there.message}")
            elif chunk.tries < TRIES and not self.pace.stopped.is_set():
                self._submit(chunk)
            else:
                self._lose(chunk, error)
            return
        report: object = future.result()
        if not isinstance(report, Report):
            # ipyparallel's direct view runs everything on every engine, and gives a list.
            everywhere = "the executor ran these rows on every worker: ipyparallel's is cluster.executor()"
            self._lose(chunk, ConfigurationError(everywhere))
            self.stop()
            return
        self._learn(chunk, report)
        self.pace.hold(report.rest)
        # Refusals say nothing while an earlier chunk is still being answered, nor where an answer came meanwhile.
        is_answering = chunk.sent < self._answered or any(one.sent < chunk.sent for one in self._under_way.values())
        if any(outcome is not None and outcome.error is None for outcome in report.outcomes):
            self._answered = time.monotonic()
        unsent = []
        for question, outcome in zip(chunk.questions, report.outcomes, strict=True):
            if outcome is None:
                unsent.append(question)
            else:
                self._keep(question, outcome, counts=outcome.error is None or not is_answering)
        if report.reason and not is_answering:
            self._ask_no_more(report.reason)
        elif unsent:
            self._submit(Chunk(unsent))

    def _keep(self, question: Question, outcome: Outcome, *, counts: bool) -> None:
        failure = outcome.error
        cassette = self._client.cassette
        if outcome.interaction is not None and cassette is not None and question.sample is not None:
            outcome.interaction.call = question.sample
            try:
                cassette.keep(outcome.interaction)
            except CompletionsError as error:
                failure = failure or error
        if outcome.completion.usage is not None:
            self.pace.spend(outcome.completion.usage.total_tokens)
        if counts:
            self.breaker.hear(outcome.completion, failure)
            self._heed()
        self._settle(question, outcome.completion.remember(self._client), failure)

    def _lose(self, chunk: Chunk, cause: BaseException) -> None:
        failure = (
            cause
            if isinstance(cause, CompletionsError)
            else WorkerError(
                f"the executor lost this row ({type(cause).__name__}: {cause}): run the cell again, "
                "with a new executor if this one is broken; with --journal only what is missing is asked"
            )
        )
        for question in chunk.questions:
            self._settle(question, Completion(), failure)

    def _learn(self, chunk: Chunk, report: Report) -> None:
        """Fit the chunks to what the engine costs, and send more at once while none of them had to queue."""
        took = time.monotonic() - chunk.sent
        self._way = min(self._way, max(0.0, took - report.seconds))
        each = max(1e-6, report.seconds / len(chunk.questions))
        worth = min(WORTH * self._way, LONGEST_CHUNK) / each
        self._size = max(self._concurrency, round(worth))
        if took - report.seconds < 2 * self._way + report.seconds / 2:
            self._most += 1


def _unwrapped(error: BaseException | None) -> BaseException | None:
    """Return an error of a worker; ipyparallel gives the name and the words of what was raised there."""
    if getattr(error, "ename", None) == ProfileError.__name__:
        return ProfileError(str(getattr(error, "evalue", "")))
    return error


def spread_or_ask(
    rows: Rows, request: Request, client: Client, *, executor: Executor | None = None, **settings: Any
) -> Asking:
    """Return the rows at work in this process's threads, or on the workers of `executor`."""
    if executor is None:
        return Asking(rows, request, client, **settings)
    if not callable(getattr(executor, "submit", None)):
        raise ConfigurationError(
            f"executor takes a concurrent.futures.Executor, not {type(executor).__name__}: "
            "Dask's is client.get_executor(), ipyparallel's is cluster.executor()"
        )
    return Spreading(rows, request, client, executor=executor, **settings)
