"""Ask an endpoint: one request, its retries, and the answer as a stream of chunks."""

from __future__ import annotations

import contextlib
import logging
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator, Hashable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx
import msgspec

from .answer import AnswerReader
from .endpoint import Endpoint, read_pieces
from .errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    CompletionsError,
    DecodeError,
    Interrupted,
    ProfileError,
    StreamError,
)
from .key import ApiKey
from .profiles import Profile, choose_profile
from .schema import Completion, CompletionRequest, Growing, Model, read_models

log = logging.getLogger("completions_magic")

RETRIED = (408, 409, 429)
LONGEST_WAIT = 60.0
"""Seconds: a server that asks for a longer wait is not asked again."""
FIRST_WAIT = 0.5

_waits: ContextVar[bool] = ContextVar("completions_magic_waits", default=True)


@contextlib.contextmanager
def no_waits() -> Iterator[None]:
    """Within this block retries happen at once: for tests of code that meets failing endpoints."""
    token = _waits.set(False)
    try:
        yield
    finally:
        _waits.reset(token)


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
    that name none; `connect_timeout` and `timeout` are seconds, the latter the longest silence before the
    first event and between events; `retries` happen only before anything of an answer was handed on.
    `on_wait` is called before each. Raises ProfileError when the endpoint or its key is not usable.
    """

    def __init__(
        self,
        profile: str | Profile | None = None,
        *,
        base_url: str | None = None,
        api_key: str | ApiKey | None = None,
        model: str | None = None,
        connect_timeout: float = 10.0,
        timeout: float = 60.0,
        retries: int = 2,
        transport: httpx.BaseTransport | None = None,
        on_wait: Callable[[Wait], None] | None = None,
    ) -> None:
        if isinstance(profile, Profile):
            self.profile = profile
        else:
            self.profile = choose_profile(profile, base_url=base_url, model=model)
        self.model = model or self.profile.model
        self.timeout = timeout
        self.retries = retries
        self.on_wait = on_wait
        key = ApiKey(api_key) if isinstance(api_key, str) else api_key
        self.endpoint = Endpoint(
            self.profile, key, connect_timeout=connect_timeout, timeout=timeout, transport=transport
        )

    @property
    def name(self) -> str:
        """What errors and views call the endpoint."""
        return self.profile.name

    @property
    def identity(self) -> Hashable:
        """What two clients share that may use the same connection."""
        profile = self.profile
        settings = (self.timeout, self.retries, self.model, repr(sorted(profile.parameters.items())))
        return profile.name, profile.base_url, profile.allow_http, self.endpoint.key, settings

    def request(self, prompt: object, *, model: str | None = None, **parameters: Any) -> CompletionRequest:
        """Return the request that these arguments and the profile's defaults come to.

        Raises PromptError or ConfigurationError for what cannot be sent, ProfileError when no model is named.
        """
        model = model or self.model
        if model is None:
            raise ProfileError(
                f"{self.name} needs a model: name one with --model; %completions models lists them", endpoint=self.name
            )
        return CompletionRequest.build(prompt, model=model, **{**self.profile.parameters, **parameters})

    def complete(self, prompt: object, *, model: str | None = None, **parameters: Any) -> Completion:
        """Return the completion of `prompt`, unstreamed unless `stream=True` is among the parameters.

        `parameters` are the API's, by name; others are passed on. Raises CompletionsError in one of its kinds.
        """
        return Completion.sum(self.send(self.request(prompt, model=model, **parameters)))

    def stream(self, prompt: object, *, model: str | None = None, **parameters: Any) -> Stream:
        """Return the completion of `prompt` as an iterator of chunks whose sum it is."""
        return self.send(self.request(prompt, model=model, **{**parameters, "stream": True}))

    def send(self, request: CompletionRequest) -> Stream:
        """Return the answer to `request` as an iterator of chunks; nothing is sent before the first is asked for."""
        return Stream(self, request)

    def models(self) -> list[Model]:
        """Return the models that the endpoint lists. Raises CompletionsError in one of its kinds."""
        with self.endpoint.named():
            response = self.endpoint.open("GET", "/models")
            try:
                return read_models(msgspec.json.decode(response.read()))
            except (msgspec.DecodeError, httpx.HTTPError, UnicodeDecodeError):
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

    def __init__(self, client: Client, request: CompletionRequest) -> None:
        self.request = request
        self._client = client
        self.growing = Growing()
        self._stopped = threading.Event()
        self._socket: socket.socket | None = None
        self._reader: int | None = None
        self._lock = threading.Lock()
        self._chunks = self._run()

    @property
    def partial(self) -> Completion:
        """The sum of the chunks so far."""
        return self.growing.completion()

    @property
    def stopped(self) -> bool:
        """True once `stop` was called."""
        return self._stopped.is_set()

    def __iter__(self) -> Iterator[Completion]:
        return self

    def __next__(self) -> Completion:
        with self._lock:
            self._reader = threading.get_ident()
        try:
            return next(self._chunks)
        finally:
            with self._lock:
                self._reader = None

    def close(self) -> None:
        """Close the connection; nothing more comes."""
        self._chunks.close()

    def stop(self) -> None:
        """End the answer from any thread, within a moment and without an error."""
        self._stopped.set()
        with self._lock:
            reader = self._reader
            if self._socket is not None:
                # A reader that waits in recv wakes up with the end of the stream.
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)
            elif reader is not None and reader == threading.main_thread().ident and hasattr(signal, "pthread_kill"):
                # It waits for a connection, or on one whose socket httpcore does not show before the headers.
                signal.pthread_kill(reader, signal.SIGINT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Note the connection's socket as httpcore opens it (its `trace` extension)."""
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self._socket = info["return_value"].get_extra_info("socket")

    def _run(self) -> Generator[Completion, None, None]:
        interrupted = False
        try:
            with self._client.endpoint.named():
                yield from self._attempts()
        except CompletionsError as error:
            if self.growing:
                error.partial = self.growing.completion(ended="error")
            raise
        except KeyboardInterrupt:
            interrupted = not self.stopped
        if interrupted:
            # Outside the handler, so that no frame of the transport, which knows the headers, hangs on to it.
            raise Interrupted(self.growing.completion(ended="interrupted") if self.growing else None)

    def _attempts(self) -> Generator[Completion, None, None]:
        client = self._client
        body = self.request.encode()
        client.endpoint.check(body)
        for retry in range(1, client.retries + 2):
            if self._stopped.is_set():
                return
            try:
                yield from self._attempt(body)
            except CompletionsError as error:
                if self.stopped:
                    return
                seconds = _wait_before(error, retry)
                if self.growing.started or retry > client.retries or seconds is None:
                    raise
                wait = Wait(_in_short(error), seconds, retry, client.retries)
            else:
                return
            self._pause(wait)

    def _pause(self, wait: Wait) -> None:
        log.info("%s: %s", self._client.name, wait)
        if self._client.on_wait is not None:
            self._client.on_wait(wait)
        if _waits.get():
            self._stopped.wait(wait.seconds)

    def _attempt(self, body: bytes) -> Generator[Completion, None, None]:
        endpoint = self._client.endpoint
        clock = _Silence(endpoint.timeout, endpoint.name)
        response = endpoint.open("POST", "/completions", body, self.trace)
        try:
            network = response.extensions.get("network_stream")
            if network is not None:
                self._socket = network.get_extra_info("socket")
            reader = AnswerReader(endpoint.key, name=endpoint.name)
            for chunk in reader.chunks(clock.watch(read_pieces(endpoint, response))):
                chunk.request = self.request
                self.growing.add(chunk)
                yield chunk
                clock.reset()
                if self.stopped:
                    return
            if not self.stopped:
                reader.check_end(self.growing)
        finally:
            response.close()
            self._socket = None


class _Silence:
    """Seconds since the last event; keep-alive comments and single bytes do not count as one."""

    def __init__(self, limit: float, name: str) -> None:
        self._limit = limit
        self._name = name
        self._since = time.monotonic()

    def reset(self) -> None:
        self._since = time.monotonic()

    def watch(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            yield piece
            if time.monotonic() - self._since > self._limit:
                raise APITimeoutError(f"{self._name} sent no event for {self._limit:g} s (--timeout)")


def _in_short(error: CompletionsError) -> str:
    return str(error.status) if error.status else {"timeout": "no answer"}.get(error.kind, "no connection")


def _wait_before(error: CompletionsError, retry: int) -> float | None:
    """Return the seconds to wait before trying again, or None where trying again is of no use."""
    passing = isinstance(error, (APIConnectionError, StreamError)) and error.kind in ("connect", "timeout", "protocol")
    if not passing and error.status not in RETRIED and (error.status or 0) < 500:
        return None
    asked = error.retry_after if isinstance(error, APIStatusError) else None
    if asked is not None:
        return asked if asked <= LONGEST_WAIT else None
    jitter: float = random.uniform(0.75, 1.25)
    return FIRST_WAIT * 2.0 ** (retry - 1) * jitter
