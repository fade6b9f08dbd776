"""Ask an endpoint: one request, its retries, and the answer as a stream of chunks."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import getfullargspec
from numbers import Real
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import httpx
import msgspec

from .answer import AnswerReader
from .cassette import RECORDING, Cassette
from .endpoint import Endpoint
from .errors import (
    APIConnectionError,
    APIStatusError,
    CompletionsError,
    ConfigurationError,
    DecodeError,
    Interrupted,
    NotFoundError,
    ProfileError,
    StreamError,
    TooLargeError,
    nearest,
    shorten,
)
from .events import EVENT_LIMIT
from .key import ApiKey
from .neighbours import Neighbours
from .pace import HEAR_SECONDS, Pace, waits
from .profiles import Profile, choose_profile
from .schema import KNOBS, Completion, CompletionRequest, Growing, Model, read_models
from .transport import Watch

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from .batch import Batch
    from .scores import Scores

log = logging.getLogger("completions_magic")

RETRIED = (408, 409, 429)
LONGEST_WAIT = 60.0
"""Seconds: a server that asks for a longer wait is not asked again."""
FIRST_WAIT = 0.5
DRAIN_SECONDS = 0.05
MODELS_LIMIT = 8 * 2**20
LOOK_SECONDS = 2.0
LONGEST_TIMEOUT = 1e9
LOOK_LIMIT = 2**20
"""Bytes of the list of models that is looked at for names near an unknown one."""
MISSPELT = 0.7
"""How like one of our keywords a field is that is refused: higher than for a hint, since servers have their own."""


@dataclass(frozen=True)
class Wait:
    """A pause before the request is sent again: why, for how many seconds, and which retry of how many."""

    reason: str
    seconds: float
    retry: int
    retries: int

    def __str__(self) -> str:
        when = f"in {self.seconds:.0f} s" if self.seconds >= 1 else "at once"
        return f"{self.reason}: trying again {when}, {self.retry} of {self.retries}"


class Client:
    """Talks to one endpoint over one pooled connection; made of a profile, or of a base URL.

    With nothing given it is the endpoint of `OPENAI_BASE_URL`, or the embedded one. `model` is used by requests
    that name none. Seconds: `connect_timeout` until there is a connection, `first_token_timeout` until the first
    token (as long as nothing is said, `timeout`), and `timeout` the longest silence between tokens. `event_limit` is
    the most bytes of one event. `retries` happen only before anything of an answer was handed on; `on_wait` is
    called before each, in a batch from any of its threads. `cassette`, a path or a Cassette, records and replays, in
    the mode `record`; `pace` is shared by all clients that are to ask no faster together.
    Raises ProfileError when the endpoint or its key is not usable, ConfigurationError for `record` without a
    cassette and for seconds that are none.
    """

    def __init__(
        self,
        profile: str | Profile | None = None,
        *,
        base_url: str | None = None,
        api_key: str | ApiKey | None = None,
        model: str | None = None,
        connect_timeout: float = 10.0,
        first_token_timeout: float | None = None,
        timeout: float = 60.0,
        retries: int = 2,
        event_limit: int = EVENT_LIMIT,
        transport: httpx.BaseTransport | None = None,
        cassette: str | os.PathLike[str] | Cassette | None = None,
        record: str | None = None,
        pace: Pace | None = None,
        on_wait: Callable[[Wait], None] | None = None,
    ) -> None:
        if isinstance(profile, Profile):
            self.profile = profile
        else:
            self.profile = choose_profile(profile, base_url=base_url, model=model)
        self.model = model or self.profile.model
        self.timeout = timeout
        self.retries = max(0, retries)
        self.event_limit = event_limit
        self.on_wait = on_wait
        first_token_timeout = timeout if first_token_timeout is None else first_token_timeout
        _check_seconds(connect_timeout=connect_timeout, first_token_timeout=first_token_timeout, timeout=timeout)
        if record is not None and cassette is None:
            raise ConfigurationError("record is how a cassette is used, and there is none: cassette=PATH names one")
        if cassette is not None and (record is not None or not isinstance(cassette, Cassette)):
            cassette = _cassette(cassette, record)
        self.cassette = cassette
        self.neighbours = Neighbours()
        self.endpoint = Endpoint(
            self.profile,
            _as_key(api_key),
            connect_timeout=connect_timeout,
            first_token_timeout=first_token_timeout,
            timeout=timeout,
            transport=transport,
            cassette=cassette,
            pace=pace,
        )

    def paced(self, pace: Pace) -> Client:
        """Return a client of the same endpoint and settings with connections of its own, at a pace."""
        client = Client(
            self.profile,
            api_key=self.endpoint.key,
            transport=self.endpoint.transport,
            cassette=self.cassette,
            pace=pace,
            on_wait=self.on_wait,
            **self.settings,
        )
        client.neighbours = self.neighbours
        return client

    @property
    def settings(self) -> dict[str, Any]:
        """What another client of the same profile is made with, in another process too."""
        return {
            "model": self.model,
            "connect_timeout": self.endpoint.connect_timeout,
            "first_token_timeout": self.endpoint.first_token_timeout,
            "timeout": self.timeout,
            "retries": self.retries,
            "event_limit": self.event_limit,
        }

    def asks(self, request: CompletionRequest, sample: int) -> bool:
        """Say whether the endpoint would be asked, rather than the cassette."""
        return self.endpoint.asks(request.encode(), sample)

    @property
    def pace(self) -> Pace | None:
        """What all clients share that are to ask no faster together."""
        return self.endpoint.pace

    @property
    def name(self) -> str:
        """What errors and views call the endpoint."""
        return self.profile.name

    @property
    def identity(self) -> Hashable:
        """What two clients share that may use the same connection."""
        profile = self.profile
        tape = None if self.cassette is None else (self.cassette.tape, self.cassette.record, self.cassette.pace)
        settings = (*self.settings.values(), repr(sorted(profile.parameters.items())), tape)
        return profile.name, profile.base_url, profile.allow_http, self.endpoint.key, settings

    def request(self, /, prompt: object, *, model: str | None = None, **parameters: Any) -> CompletionRequest:
        """Return the request that these arguments and the profile's defaults come to.

        Raises PromptError or ConfigurationError for what cannot be sent, ProfileError when no model is named.
        """
        model = model or self.model
        if model is None:
            raise ProfileError(
                f"{self.name} needs a model: name one with --model; %completions models {self.name} lists them",
                endpoint=self.name,
            )
        return CompletionRequest.build(prompt, model=model, **{**self.profile.parameters, **parameters})

    def complete(self, /, prompt: object, *, model: str | None = None, **parameters: Any) -> Completion:
        """Return the completion of `prompt`, unstreamed unless `stream=True` is among the parameters.

        `parameters` are the API's, by name; others are passed on. Raises CompletionsError in one of its kinds.
        """
        stream = self.send(self.request(prompt, model=model, **parameters))
        for _ in stream:
            pass
        return stream.partial

    def stream(self, /, prompt: object, *, model: str | None = None, **parameters: Any) -> Stream:
        """Return the completion of `prompt` as an iterator of chunks whose sum it is."""
        return self.send(self.request(prompt, model=model, **{**parameters, "stream": True}))

    def send(self, request: CompletionRequest, *, sample: int | None = None, frame: float = 0.0) -> Stream:
        """Return the answer to `request` as an iterator of chunks; nothing is sent before the first is asked for.

        `sample` picks one of several recordings of this request on the cassette, from 1. `frame` is for what a person
        watches: after the first, chunks that come within so many seconds are read together, which costs far less.
        """
        return Stream(self, request, sample, frame)

    def complete_many(
        self,
        prompts: object,
        *,
        concurrency: int = 8,
        pack: int = 1,
        pace: Pace | None = None,
        executor: Executor | None = None,
        model: str | None = None,
        **parameters: Any,
    ) -> Batch:
        """Return the completions of many prompts, in their order, asked for several at a time.

        `prompts` is a list, a series or any iterable of prompts; `pack` of them travel as one request, and `pace`
        bounds requests a second and what is spent. `executor`, any concurrent.futures.Executor, asks elsewhere:
        chunks of prompts go to its workers, which read their key from their own environment, and `concurrency` of
        a chunk are asked at a time. `parameters` are the API's, by name; others are passed on, unless they look like
        one of these keywords misspelt. A prompt that fails has its error in its row; an endpoint that fails every one
        is asked no more, and the batch's `ended` says why. With a cassette and an iterator the rows are kept on disk.
        Raises ConfigurationError for what cannot be sent; after an interrupt the Interrupted has what was done as its
        `batch`.
        """
        from .rows import ROW, is_frame, read_rows
        from .spread import spread_or_ask

        if isinstance(prompts, (str, bytes)):
            raise ConfigurationError("complete_many takes a list of prompts, and this is one: complete takes it")
        _check_spelling(self.complete_many, parameters, model)
        if is_frame(prompts) or isinstance(prompts, Mapping):
            raise ConfigurationError("complete_many takes prompts: give a column of texts, such as frame['text']")

        def request(columns: Mapping[str, Any]) -> CompletionRequest:
            return self.request(columns[ROW], model=model, **parameters)

        return spread_or_ask(
            read_rows(prompts), request, self, concurrency=concurrency, pack=pack, pace=pace, executor=executor
        ).run()

    def score(
        self,
        contexts: object,
        candidates: Iterable[str] | Iterable[Iterable[str]],
        *,
        by: str = "logprob",
        unconditional: str = "Answer:",
        concurrency: int = 8,
        pace: Pace | None = None,
        model: str | None = None,
        **parameters: Any,
    ) -> Scores:
        """Return how likely each of the candidates is after each context, and which is the best.

        `contexts` is one text, or many as in `complete_many`; `candidates` a list of texts, or a list of lists, one
        for each context. `by` is logprob, per_token, per_byte or pmi, the last one against the `unconditional` context.
        `parameters` are as in `complete_many`.
        Raises ScoringError when the endpoint gives no log-probabilities of a prompt, ConfigurationError for what cannot
        be sent.
        """
        from .scores import score, scoring_parameters

        _check_spelling(self.score, parameters, model)
        fields = scoring_parameters(self, parameters)

        def request(prompt: str) -> CompletionRequest:
            return self.request(prompt, model=model, **fields)

        return score(
            self,
            contexts,
            candidates,
            request,
            by=by,
            unconditional=unconditional,
            concurrency=concurrency,
            pace=pace,
        )

    def models(self) -> list[Model]:
        """Return the models that the endpoint lists. Raises CompletionsError in one of its kinds."""
        failure: BaseException
        try:
            return self.list_models(Watch(self.timeout))
        except CompletionsError as error:
            failure = self.endpoint.cleaned(error)
        except KeyboardInterrupt:
            failure = Interrupted()
        if isinstance(failure, Interrupted):
            self.endpoint.forget()
        raise failure

    def list_models(self, watch: Watch, limit: int = MODELS_LIMIT) -> list[Model]:
        """Return the models listed in at most `limit` bytes, while `watch` waits; its errors are not cleaned."""
        response = self.endpoint.open("GET", "/models", watch)
        body = bytearray()
        try:
            for piece in self.endpoint.pieces(response, watch):
                body += piece
                if len(body) > limit:
                    raise TooLargeError(f"{self.name} lists models in more than {limit:,} bytes")
            listed = msgspec.json.decode(body)
            return read_models(listed if self.endpoint.key is None else self.endpoint.key.scrub_all(listed))
        except CompletionsError as error:
            self.endpoint.explain(error, response)
            raise
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise DecodeError(f"{self.name} does not list its models as JSON") from None
        finally:
            response.close()

    def close(self) -> None:
        """Close the connection; the client opens a new one when it is used again."""
        self.endpoint.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.name!r}, model={self.model!r})"


class Stream:
    """The chunks of one answer as they come; `partial` is their sum so far.

    Leaving it early with `close` closes the connection. `stop` may be called from any thread: the iteration
    ends without an error, in the middle of a wait too.
    """

    def __init__(
        self, client: Client, request: CompletionRequest, sample: int | None = None, frame: float = 0.0
    ) -> None:
        # The call does not know the stream, so that a stream that nobody holds any more ends at once.
        self._call = _Call(client, request, sample, frame)
        self._chunks = self._call.run()

    @property
    def request(self) -> CompletionRequest:
        """What was asked."""
        return self._call.request

    @property
    def partial(self) -> Completion:
        """The sum of the chunks so far."""
        return self._call.sum()

    def ended(self, reason: str | None = None) -> Completion:
        """Return the sum of the chunks; choices that have no finish_reason get `reason`."""
        return self._call.sum(reason)

    @property
    def stopped(self) -> bool:
        """True once `stop` was called."""
        return self._call.is_stopped()

    @property
    def replayed(self) -> bool:
        """True when the answer came from a cassette."""
        return self._call.replayed

    def __iter__(self) -> Iterator[Completion]:
        return self._chunks

    def __next__(self) -> Completion:
        return next(self._chunks)

    def close(self) -> None:
        """Close the connection; nothing more comes."""
        self._chunks.close()

    def stop(self) -> None:
        """End the answer from any thread, within a moment and without an error."""
        self._call.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()


class _Reading:
    """Notes, within a block, which `thread` waits for the endpoint; `lock` is held while that changes."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.thread: int | None = None

    def __enter__(self) -> None:
        with self.lock:
            self.thread = threading.get_ident()

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.thread = None


class _Call:
    """One request at work: its attempts, its chunks, and what another thread may do to it."""

    def __init__(self, client: Client, request: CompletionRequest, sample: int | None, frame: float) -> None:
        self.request = request
        self._sample = sample
        self._frame = frame
        self._stopped = False
        self.replayed = False
        self._reading = _Reading()
        self._client = client
        self._growing = Growing()
        self._waits = waits.get()  # where it is asked, not where it is read: that may be another thread
        self._watch: Watch | None = None

    def sum(self, ended: str | None = None) -> Completion:
        completion = self._growing.completion(ended=ended).remember(self._client)
        completion.request = self.request
        key = self._client.endpoint.key
        if key is not None:
            # Chunk by chunk a key may come in pieces too small to tell.
            for choice in completion.choices:
                choice.text = key.scrub(choice.text)
        return completion

    def is_stopped(self) -> bool:
        return self._stopped

    def stop(self) -> None:
        self._stopped = True
        with self._reading.lock:
            watch, reader = self._watch, self._reading.thread
            shut = watch is not None and watch.interrupt()
            if not shut and reader == threading.main_thread().ident and reader and hasattr(signal, "pthread_kill"):
                # It computes in process, or waits where no socket is known: for a name to be looked up.
                signal.pthread_kill(reader, signal.SIGINT)
                self._reading.thread = None  # it ends, and may be at other things when this is called again

    def run(self) -> Generator[Completion, None, None]:
        failure: BaseException | None = None
        interrupted = False
        request, add = self.request, self._growing.add
        try:
            # One generator stands between a chunk and who reads it: each more would cost it again.
            with contextlib.closing(self._attempts()) as batches:
                for batch in batches:
                    for chunk in batch:
                        chunk.request = request
                        add(chunk)
                        yield chunk
                        if self._stopped:
                            return
        except CompletionsError as error:
            failure = self._client.endpoint.cleaned(error)
            if self._growing:
                error.partial = self.sum("error")
        except KeyboardInterrupt:
            interrupted = True
            if not self.is_stopped():
                failure = Interrupted(self.sum("interrupted") if self._growing else None)
        if interrupted:
            self._reading.__exit__()  # which the interrupt may have cut short
            self._client.endpoint.forget()
        if failure is not None:
            # Outside the handler, so that no frame of the transport, which knows the headers, hangs on to it.
            raise failure

    def _attempts(self) -> Generator[Sequence[Completion], None, None]:
        client = self._client
        body = self.request.encode()
        client.endpoint.check(body)
        for retry in range(1, client.retries + 2):
            if self.is_stopped():
                return
            try:
                yield from self._attempt(body)
            except CompletionsError as error:
                self._look_around(error)
                if self.is_stopped():
                    return
                seconds = _wait_before(error, retry)
                if self._growing.started or retry > client.retries or seconds is None:
                    error.message += f" (asked {retry} times)" if retry > 1 else ""
                    raise
                wait = Wait(_in_short(error), seconds, retry, client.retries)
            else:
                return
            self._pause(wait)

    def _look_around(self, error: CompletionsError) -> None:
        """Put near names into the refusal of a model; never with a cassette, so that outputs stay the same."""
        client = self._client
        if isinstance(error, NotFoundError) and self.request.model is not None and client.cassette is None:
            client.neighbours.explain(error, self.request.model, self._look)

    def _look(self) -> list[str]:
        watch = Watch(LOOK_SECONDS)
        self._hold_on_to(watch)
        try:
            with self._reading:
                return [model.id for model in self._client.list_models(watch, LOOK_LIMIT)]
        finally:
            self._let_go()

    def _pause(self, wait: Wait) -> None:
        log.info("%s: %s", self._client.name, wait)
        if self._client.on_wait is not None:
            self._client.on_wait(wait)
        until = time.monotonic() + (wait.seconds if self._waits else 0.0)
        # In short sleeps: an interrupt that falls right before a long one would be heard after it.
        while not self.is_stopped() and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, HEAR_SECONDS))

    def _attempt(self, body: bytes) -> Generator[Sequence[Completion], None, None]:
        endpoint = self._client.endpoint
        watch = Watch(endpoint.timeout, self._frame, first=endpoint.first_token_timeout)
        self._hold_on_to(watch)
        try:
            yield from self._answer(body, watch)
        finally:
            self._let_go()

    def _hold_on_to(self, watch: Watch) -> None:
        """Remember what ends the wait that begins; a stop may have come just before."""
        with self._reading.lock:
            self._watch = watch
            if self._stopped:
                watch.interrupt()

    def _let_go(self) -> None:
        """Forget the connection: from here on it may be another request's, and must not be shut."""
        with self._reading.lock:
            self._watch = None

    def _answer(self, body: bytes, watch: Watch) -> Generator[Sequence[Completion], None, None]:
        with self._reading:
            response = self._client.endpoint.open("POST", "/completions", watch, body, sample=self._sample)
        self.replayed = "replayed" in response.extensions
        if watch.socket is None and "network_stream" in response.extensions:
            # Another transport over a socket, such as one through a proxy.
            watch.socket = response.extensions["network_stream"].get_extra_info("socket")
            if self.is_stopped():
                watch.interrupt()
        try:
            yield from self._batches(response, watch)
        except CompletionsError as error:
            self._client.endpoint.explain(error, response)
            if error.kind not in ("protocol", "timeout") or not self._is_whole():
                raise
        finally:
            self._let_go()
            response.close()

    def _batches(self, response: httpx.Response, watch: Watch) -> Iterator[Sequence[Completion]]:
        endpoint = self._client.endpoint
        reader = AnswerReader(
            endpoint.key,
            name=endpoint.name,
            choices=self.request.choices,
            event_limit=self._client.event_limit,
        )
        pieces = self._read(endpoint.pieces(response, watch))
        for batch in reader.batches(pieces):
            has_token = any(chunk.choices for chunk in batch)
            left = 0.0 if has_token else watch.left
            yield batch
            if has_token:
                watch.heard = True
            else:
                watch.allow(left)  # a server may send such events for ever
        if self.is_stopped():
            return
        reader.check_end(self._growing)
        if RECORDING in response.extensions and not reader.masked:
            response.extensions[RECORDING](self._growing.completion(), ended=True)
        watch.frame = 0.0
        watch.allow(DRAIN_SECONDS)
        with contextlib.suppress(CompletionsError):
            # What follows [DONE] is the end of the transfer: once it is read the connection can be used again.
            next(pieces, None)

    def _read(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        while True:
            with self._reading:
                piece = next(pieces, None)
            if piece is None:
                return
            yield piece

    def _is_whole(self) -> bool:
        """Say whether the server has ended every choice that was asked for: what breaks afterwards costs nothing."""
        return self._growing.finished() and len(self._growing.completion().choices) >= self.request.choices


def _as_key(given: object) -> ApiKey | None:
    if given is None or isinstance(given, ApiKey):
        return given
    if isinstance(given, str):
        return ApiKey(given)
    raise ProfileError(f"api_key takes the key as text, not {type(given).__name__}")


def _check_seconds(**given: object) -> None:
    for name, seconds in given.items():
        if not isinstance(seconds, Real) or not 0 < float(seconds) < LONGEST_TIMEOUT:
            raise ConfigurationError(f"{name} takes seconds above 0, not {shorten(repr(seconds), 40)}")


def _check_spelling(method: Callable[..., object], fields: Iterable[str], model: str | None) -> None:
    """Raise ConfigurationError for a field whose name is nearly a keyword of the method, which would do nothing.

    Once `model` is said nothing else is taken for it: there are servers with a field `models`.
    """
    own = [name for name in getfullargspec(method).kwonlyargs if name != "model" or model is None]
    for name in fields:
        hint = "" if name in KNOBS else nearest(name, own, MISSPELT)
        if hint:
            raise ConfigurationError(f"{method.__name__} has no keyword {name!r}{hint}: nothing was sent")


def _cassette(cassette: str | os.PathLike[str] | Cassette, record: str | None) -> Cassette:
    if isinstance(cassette, Cassette):
        return Cassette(cassette.tape, record=record, pace=cassette.pace)
    return Cassette(cassette, record=record)


def _in_short(error: CompletionsError) -> str:
    return str(error.status) if error.status else {"timeout": "no answer"}.get(error.kind, "no connection")


def _wait_before(error: CompletionsError, retry: int) -> float | None:
    """Return the seconds to wait before trying again, or None where trying again is of no use."""
    # A peer that says nothing, to TLS either, may be busy or about to start: it looks like one that never answers.
    passing = isinstance(error, (APIConnectionError, StreamError)) and error.kind in ("connect", "timeout", "protocol")
    refused = error if isinstance(error, APIStatusError) else APIStatusError("")
    useful = passing or error.status in RETRIED or (error.status or 0) >= 500
    if not (useful if refused.should_retry is None else refused.should_retry):
        return None
    asked = refused.retry_after
    if asked is not None:
        return asked if asked <= LONGEST_WAIT else None
    jitter: float = random.uniform(0.75, 1.25)
    return FIRST_WAIT * 2.0 ** (retry - 1) * jitter
